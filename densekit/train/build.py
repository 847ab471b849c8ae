"""From a run's math to a model ready to train: parts, initial weights as a file, what is trainable."""

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from densekit.errors import DataError
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import initial_connector, load_parts, read_weights, save_weights
from densekit.runs.layout import CONNECTOR_FILE, INIT_FILE, RunDir
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.train.engines.base import Engine
from densekit.train.engines.process_group import TORCH_DTYPES
from densekit.train.lora import adapter_parameter, add_lora, initial_lora, load_lora, save_lora

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
Model = DenseConnectorForConditionalGeneration


def load_base(
    math: Math,
    roots: Roots,
    execution: Execution | None = None,
    accelerator: Accelerator | None = None,
) -> Model:
    """The pretrained parts a recipe names, with LoRA adapters in place when it has any; projector
    on meta.

    fp32, or what `execution` asks for. Under ZeRO-3 each rank keeps its slice of the language model
    while loading.
    """
    models = math.models
    execution = execution or Execution()
    # Weights that one rank trains whole are its fp32 masters; ZeRO makes masters of its own.
    masters = execution.zero_stage == 0 and math.stage == 2 and not math.lora
    context = None
    if execution.zero_stage == 3:
        from densekit.train.engines.zero import partitioned_loading

        assert accelerator is not None
        context = partitioned_loading(accelerator)
    model = load_parts(
        roots.resolve(models.language_model),
        roots.resolve(models.vision_tower),
        math.connector,
        dtype=torch.float32 if masters else TORCH_DTYPES[execution.dtype],
        language_model_context=context,
    )
    if math.lora:
        add_lora(model, math.lora)
    return model


def draw_init(model: Model, math: Math, roots: Roots, stage1: RunDir | None) -> dict[str, Tensor]:
    """Weights that are not in the pretrained parts: `connector.*` and `lora.*`, fp32 on the CPU.

    The connector comes from the recipe's file, from the stage-1 run, or is drawn from the seed.
    """
    if math.models.connector:
        connector = read_weights(roots.resolve(math.models.connector))
    elif stage1 is not None:
        connector = read_weights(stage1.path / CONNECTOR_FILE)
    else:
        connector = initial_connector(model, math.seed)
    init = {f"connector.{name}": value.float() for name, value in connector.items()}
    if math.lora:
        init |= {f"lora.{name}": value for name, value in initial_lora(model, math.seed).items()}
    return init


def apply_init(model: Model, init: dict[str, Tensor]) -> None:
    """Put `connector.*` and `lora.*` weights into the model; DataError when they do not fit."""
    connector = {
        name.removeprefix("connector."): v
        for name, v in init.items()
        if name.startswith("connector.")
    }
    expected = {name: tuple(value.shape) for name, value in model.projector.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in connector.items()}
    if expected != found:
        raise DataError(
            f"connector weights do not fit this model: found {found}, needed {expected}"
        )
    model.projector.to_empty(device="cpu")
    model.projector.load_state_dict(connector)
    lora = {name.removeprefix("lora."): v for name, v in init.items() if name.startswith("lora.")}
    if lora:
        load_lora(model, lora)


def set_trainable(model: Model, math: Math) -> None:
    """Stage 1: the connector; stage 2: connector and language model, or connector and LoRA. Tower
    frozen.
    """
    model.vision_tower.requires_grad_(False)
    model.projector.requires_grad_(True)
    if not math.lora:
        model.language_model.requires_grad_(math.stage == 2)


def build(
    run: RunDir,
    math: Math,
    roots: Roots,
    stage1: RunDir | None,
    execution: Execution,
    accelerator: Accelerator,
) -> Model:
    """The model of a run at step 0: rank 0 writes the drawn weights to init.safetensors, every rank
    reads them.
    """
    model = load_base(math, roots, execution, accelerator)
    path = run.path / INIT_FILE
    if accelerator.is_main_process:
        save_weights(draw_init(model, math, roots, stage1), path)
    accelerator.wait_for_everyone()
    return prepare(model, math, read_weights(path))


def prepare(model: Model, math: Math, init: dict[str, Tensor]) -> Model:
    """Put the initial weights into the parts and mark what is trainable: the model at step 0."""
    apply_init(model, init)
    set_trainable(model, math)
    return model.train()


def init_by_parameter(init: dict[str, Tensor]) -> dict[str, Tensor]:
    """`connector.*` and `lora.*` weights under the names of the parameters they start."""
    renamed = {}
    for name, value in init.items():
        part, _, rest = name.partition(".")
        renamed[
            f"projector.{rest}"
            if part == "connector"
            else f"language_model.{adapter_parameter(rest)}"
        ] = value
    return renamed


def save_results(engine: Engine, run: RunDir, math: Math, tokenizer: Path) -> list[Path]:
    """Write what was trained: connector.safetensors (fp32), and model/ (full, with its tokenizer)
    or lora/ in stage 2.

    Every rank must call it; rank 0 writes. Returns the files.
    """
    trained = {
        name: engine.full_weight(name)
        for name in engine.trainable
        if name.startswith("projector.") or math.lora
    }
    full = math.stage == 2 and not math.lora
    language_model = engine.language_model_weights() if full else {}
    if engine.rank != 0:
        return []
    connector = {
        name.removeprefix("projector."): w
        for name, w in trained.items()
        if name.startswith("projector.")
    }
    save_weights(connector, run.path / CONNECTOR_FILE)
    written = [run.path / CONNECTOR_FILE]
    if math.lora:
        adapters = {
            name.removeprefix("language_model."): weight
            for name, weight in trained.items()
            if name.startswith("language_model.")
        }
        save_lora(engine.model, adapters, math.lora, run.path / "lora")
        written += sorted((run.path / "lora").iterdir())
    elif full:
        _save_model(engine, connector, language_model, run.path / "model")
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, run.path / "model" / name)
        written += sorted((run.path / "model").iterdir())
    return written


def _save_model(
    engine: Engine, connector: dict[str, Tensor], language_model: dict[str, Tensor], folder: Path
) -> None:
    """The whole model in transformers' format, in the type it was trained in."""
    parts = {
        "vision_tower": engine.model.vision_tower.state_dict(),
        "projector": connector,
        "language_model": language_model,
    }
    weights = {
        f"{part}.{name}": value.to("cpu", TORCH_DTYPES[engine.execution.dtype])
        if value.is_floating_point()
        else value.cpu()
        for part, values in parts.items()
        for name, value in values.items()
    }
    engine.model.save_pretrained(folder, state_dict=weights)


def load_trained(run: RunDir, roots: Roots) -> Model:
    """The model a complete run trained, in eval mode."""
    math = run.math.recipe
    if math.stage == 2 and not math.lora:
        model = Model.from_pretrained(
            run.path / "model", dtype=torch.float32, local_files_only=True
        )
        return model.eval()
    model = load_base(math, roots)
    init = {
        f"connector.{name}": value
        for name, value in read_weights(run.path / CONNECTOR_FILE).items()
    }
    if math.lora:
        adapters = read_weights(run.path / "lora" / "adapter_model.safetensors")
        init |= {f"lora.{name}": value for name, value in adapters.items()}
    apply_init(model, init)
    return model.eval()
