"""From a run's math to a model at step 0: parts, initial weights as a file, what is trainable."""

import torch
from accelerate import Accelerator
from torch import Tensor

from densekit.errors import DataError
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.init import initial_newline, initial_projector
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import load_parts, read_weights, save_weights
from densekit.runs.connector_weights import connector_weights
from densekit.runs.layout import CONNECTOR_FILE, INIT_FILE, RunDir
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.train.engines.process_group import partitioned_loading
from densekit.train.lora import adapter_parameter, add_lora, initial_lora, load_lora

NEWLINE = "image_newline.weight"
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
        assert accelerator is not None
        context = partitioned_loading(accelerator)
    model = load_parts(
        roots.resolve(models.language_model),
        roots.resolve(models.vision_tower),
        math.connector,
        anyres=math.data.anyres,
        high_resolution_tower=roots.resolve_optional(models.high_resolution_tower),
        dtype=torch.float32 if masters else TORCH_DTYPES[execution.dtype],
        language_model_context=context,
    )
    model.trainable_part.positions = math.positions
    if math.lora:
        add_lora(model, math.lora)
    return model


def draw_init(model: Model, math: Math, roots: Roots, stage1: RunDir | None) -> dict[str, Tensor]:
    """Weights that are not in the pretrained parts: `connector.*`, `lora.*` and `image_newline`,
    fp32 on the CPU.

    The connector comes from the recipe's file, from the stage-1 run, or is drawn from the seed; the
    newline vector is drawn anew in every stage, as in the official code.
    Under `initial_weights: bf16` every value is rounded to bf16.
    """
    if math.models.connector:
        named = roots.resolve(math.models.connector)
        connector = read_weights(connector_weights(named, roots.cache))
    elif stage1 is not None:
        connector = read_weights(stage1.path / CONNECTOR_FILE)
    else:
        connector = initial_projector(model.projector, math.seed)
    init = {f"connector.{name}": value.float() for name, value in connector.items()}
    if math.lora:
        init |= {f"lora.{name}": value for name, value in initial_lora(model, math.seed).items()}
    if model.image_newline is not None:
        init[NEWLINE] = initial_newline(
            len(model.image_newline.weight), math.seed, stage=math.stage
        )
    if math.initial_weights == "bf16":
        init = {name: value.bfloat16().float() for name, value in init.items()}
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
            f"the connector's weights do not fit this model: found {_shapes(found)}; "
            f"expected {_shapes(expected)}"
        )
    model.projector.to_empty(device="cpu")
    model.projector.load_state_dict(connector)
    if model.image_newline is not None:
        model.set_newline(init[NEWLINE])
    lora = {name.removeprefix("lora."): v for name, v in init.items() if name.startswith("lora.")}
    if lora:
        load_lora(model, lora)


def _shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())


def set_trainable(model: Model, math: Math) -> None:
    """Stage 1: the connector; stage 2: connector and language model, or connector and LoRA. The
    tower is frozen unless it has a learning rate.
    """
    model.vision_tower.requires_grad_(False)
    if model.high_resolution_tower is not None:
        model.high_resolution_tower.requires_grad_(False)
    if math.trains_tower:
        model.train_tower()
    model.projector.requires_grad_(True)
    if model.image_newline is not None:
        model.image_newline.requires_grad_(math.stage == 2)
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
        parameter = f"language_model.{adapter_parameter(rest)}"
        if part != "lora":
            parameter = f"projector.{rest}" if part == "connector" else name
        renamed[parameter] = value
    return renamed
