"""A recorded LoRA training and the recorded list of modules LoRA applies to."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from densekit.files.json_files import read_json
from densekit.model.weights import read_weights
from densekit.parity.batch_inputs import check_pixels, check_tokens, check_vision
from densekit.parity.batch_outputs import check_outputs, check_trainable
from densekit.parity.case import Recording
from densekit.parity.compare import FINAL_LORA, Quantities
from densekit.parity.computed import trainable_parameters
from densekit.parity.curve import check_curve, check_weights
from densekit.parity.names import CONNECTOR, by_official_name
from densekit.train.lora import target_modules

BATCH = ("loss", "grad", "grad_total_l2", "param_groups")
"""Entries of lora.json that are about the golden batch at step 0."""


def check_lora(root: Path, path: Path, quantities: Quantities) -> None:
    """`<case>/lora*.json` with the weights before and after beside it: `_init` and `_final`, the
    connector's in the same files or in `_projector_init` and `_projector_final`.

    Names are peft's, the official code's or densekit's (`names.official_name`). What lora.json
    holds of the golden batch (data/stage2_batch.json) is compared as for a stage, with the arrays
    of `lora*.npz` and the gradients of `lora*_grads.safetensors` where those are.
    """
    recording = Recording.read(root, path)
    adapters, connector = _trained(path, "init")
    init = {f"connector.{name.removeprefix(CONNECTOR)}": w for name, w in connector.items()}
    init |= {f"lora.{name}": value for name, value in adapters.items()}
    model = recording.model(init)
    quantities.exact("settings", recording.math.trains, "lora")
    check_trainable(model, recording.record, quantities)
    if any(name in recording.record for name in BATCH):
        _check_batch(recording, path, recording.model(init), quantities)
    reader = recording.reader(root / recording.arguments["data_path"], model)
    check_curve(recording, model, reader, quantities, tolerance=FINAL_LORA)
    ours = _by_part(trainable_parameters(model))
    recorded = _trained(path, "final")
    for name, mine, theirs in zip(("final_lora", "final_weights"), ours, recorded, strict=True):
        check_weights(name, mine, theirs, quantities, tolerance=FINAL_LORA)


def _trained(path: Path, when: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adapters and connector of `<stem>_<when>` by official name, from one file or two."""
    together = path.with_name(f"{path.stem}_{when}.safetensors")
    apart = path.with_name(f"{path.stem}_projector_{when}.safetensors")
    weights = by_official_name(read_weights(together))
    if apart.exists() or not any(name.startswith(CONNECTOR) for name in weights):
        weights |= by_official_name(read_weights(apart))
    return _by_part(weights)


def _by_part(weights: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    connector = {name: value for name, value in weights.items() if name.startswith(CONNECTOR)}
    return {n: value for n, value in weights.items() if n not in connector}, connector


def _check_batch(recording: Recording, path: Path, model: Any, quantities: Quantities) -> None:
    reader = recording.reader(recording.root / "data" / "stage2_batch.json", model)
    arrays: dict[str, np.ndarray] = {}
    if path.with_suffix(".npz").exists():
        arrays = dict(np.load(path.with_suffix(".npz")))
        check_tokens(reader, recording, arrays, quantities)
        pixels = check_pixels(reader, arrays, quantities)
        check_vision(recording, model, pixels, arrays, quantities)
    gradients = path.with_name(f"{path.stem}_grads.safetensors")
    full = read_weights(gradients) if gradients.exists() else {}
    check_outputs(recording, model, reader, arrays, full, quantities)


def check_target_modules(root: Path, quantities: Quantities) -> None:
    """lora/target_modules.json against the Linear modules of the recorded language model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    recorded = read_json(root / "lora" / "target_modules.json")
    config = AutoConfig.from_pretrained(root / "models" / "llm_tiny", trust_remote_code=False)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    for name in ("before_vision_init", "after_vision_init"):
        quantities.exact("target_modules", target_modules(model), recorded[name])
