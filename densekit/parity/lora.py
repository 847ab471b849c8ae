"""A recorded LoRA training and the recorded list of modules LoRA applies to."""

from pathlib import Path

from densekit.files.json_files import read_json
from densekit.model.weights import read_weights
from densekit.parity.case import Recording
from densekit.parity.compare import FINAL_LORA, Quantities
from densekit.parity.stage import check_curve, check_weights
from densekit.train.lora import PREFIX, lora_weights, target_modules


def check_lora(root: Path, path: Path, quantities: Quantities) -> None:
    """`<case>/lora*.json` with its `_init`/`_final` adapters and projector weights beside it."""
    recording = Recording.read(root, path)
    stem = path.stem
    projector = read_weights(path.with_name(f"{stem}_projector_init.safetensors"))
    adapters = read_weights(path.with_name(f"{stem}_init.safetensors"))
    init = {f"connector.{_projector_name(name)}": value for name, value in projector.items()}
    model = recording.model({**init, **{f"lora.{name}": value for name, value in adapters.items()}})
    quantities.exact("settings", recording.math.lora is not None, True)
    reader = recording.reader(root / recording.arguments["data_path"], model)
    check_curve(recording, model, reader, quantities)
    final = read_weights(path.with_name(f"{stem}_final.safetensors"))
    final = {_saved_name(name): value for name, value in final.items()}
    check_weights("final_lora", lora_weights(model), final, quantities, tolerance=FINAL_LORA)
    after = read_weights(path.with_name(f"{stem}_projector_final.safetensors"))
    after = {_projector_name(name): value for name, value in after.items()}
    check_weights(
        "final_weights", dict(model.projector.state_dict()), after, quantities, tolerance=FINAL_LORA
    )


def _projector_name(name: str) -> str:
    return name.rpartition("mm_projector.")[2]


def _saved_name(name: str) -> str:
    return PREFIX + name.removeprefix(PREFIX).replace(".default.", ".")


def check_target_modules(root: Path, quantities: Quantities) -> None:
    """lora/target_modules.json against the Linear modules of the recorded language model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    recorded = read_json(root / "lora" / "target_modules.json")
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(root / "models" / "llm_tiny")
    )
    for name in ("before_vision_init", "after_vision_init"):
        quantities.exact("target_modules", target_modules(model), recorded[name])
