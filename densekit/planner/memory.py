"""Memory of one training step on one GPU, and of its process in host RAM, as densekit's engines
use it.

A step is followed through its phases: the tower, the forward pass, the loss, the backward pass of
the loss, of the last and the first layer and of the connector, the update. Each is a sum of parts;
the peak is the largest. docs/planner.md, "Memory" and "How it was checked", has the reasons.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from densekit.planner.memory_formulas import formulas
from densekit.planner.memory_trace.autograd import SINGLE
from densekit.planner.memory_trace.model import GRADIENTS, LANGUAGE, LOGITS
from densekit.planner.memory_trace.peaks import peaks
from densekit.planner.model_states import FRAGMENTATION, UPDATE, ModelStates
from densekit.planner.workload import MicroBatchShape
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB
from densekit.spec.mining import IMAGES_PER_PASS
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES
from densekit.spec.vision import VIEWS_PER_PASS

WEIGHTS, OPTIMIZER, TOWER, BUFFERS = "weights", "optimizer", "tower", "buffers"
FRAGMENTED = "fragmentation"
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, TOWER, LANGUAGE, LOGITS, BUFFERS, FRAGMENTED)
"""Parts of a phase: `tower` and `language model` are activations."""
TRACED_LAYERS = 3
"""Layers that are traced one by one. Every phase is linear in their number, so more need not be."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    parts: dict[str, int]
    """By the names of PARTS; they sum to `peak`."""
    peak: int
    host: int
    """Host RAM of this process that CPU offload takes; 0 without."""
    at: str
    """The phase of the peak."""
    phases: dict[str, dict[str, int]]
    """The parts of every phase."""
    states: ModelStates = field(compare=False, repr=False)
    micro_batch: MicroBatchShape
    """What it is the memory of."""

    def lines(self) -> list[str]:
        """The arithmetic behind every part at the peak, one line per part."""
        width = max(map(len, self.parts))
        arithmetic = formulas(self.states, self.micro_batch, at=self.at, phases=self.phases)

        def line(name: str, size: int, text: str) -> str:
            return f"{name:{width}} {size / GIB:8.2f} GiB  {text}"

        lines = [line(name, size, arithmetic[name]) for name, size in self.parts.items()]
        lines.append(line("peak", self.peak, f"in the {self.at}"))
        return lines + ([line("host", self.host, arithmetic["host"])] if self.host else [])


def memory_of(
    model: TrainedModel,
    execution: Execution,
    micro_batch: MicroBatchShape,
    *,
    accumulates: bool = True,
) -> Memory:
    """The peak of one step of micro-batches like this one, in one process.

    `accumulates`: a step has several, so that gradients of the ones before are there from the
    second on.
    """
    states = ModelStates(model, execution)
    # A micro-batch without images feeds one zero image, and one without samples a single token
    # (densekit.train.collate).
    images = max(1, micro_batch.images)
    size = max(1, micro_batch.tokens), images, max(1, micro_batch.label_positions)
    activations = _activations(
        model, traced_execution(model, execution), size, accumulates=accumulates
    )
    features = _features(model, execution, micro_batch, images)
    moving = {
        phase: parts | {TOWER: parts.get(TOWER, 0) + features}
        for phase, parts in activations.items()
    }
    if not model.trains_tower:
        moving["tower"] = {TOWER: _tower_pass(model, execution, micro_batch, images)}
    moving[UPDATE] = {}
    outside = sum(states.outside_allocator.values())
    phases = {
        phase: _all_parts(states, phase, parts, outside, accumulates=accumulates)
        for phase, parts in moving.items()
    }
    at = max(phases, key=lambda phase: sum(phases[phase].values()))
    parts = phases[at]
    return Memory(
        parts=parts,
        peak=sum(parts.values()),
        host=states.host,
        at=at,
        phases=phases,
        states=states,
        micro_batch=micro_batch,
    )


def _all_parts(
    states: ModelStates, phase: str, moving: dict[str, int], outside: int, *, accumulates: bool
) -> dict[str, int]:
    """All parts of a phase, from the activations in it and what torch's allocator does not hold."""
    parts = dict.fromkeys(PARTS, 0) | moving
    parts[WEIGHTS], parts[OPTIMIZER] = states.weights, states.optimizer
    if phase == UPDATE or accumulates or states.execution.zero_stage:
        parts[GRADIENTS] = states.gradients
    parts[BUFFERS] += sum(states.buffers(phase).values())
    if states.execution.device == "cuda":
        comes_and_goes = sum(parts[name] for name in (TOWER, LANGUAGE, LOGITS, BUFFERS))
        parts[FRAGMENTED] = int(FRAGMENTATION * (comes_and_goes - outside))
    return parts


def traced_execution(model: TrainedModel, execution: Execution) -> Execution:
    """The one execution that is traced for all that allocate alike."""
    language = model.shape.language
    # xformers differs from flash-attn in its repeated keys and values alone.
    alike = execution.attention == "xformers" and language.heads == language.kv_heads
    return Execution(
        device=execution.device,
        dtype="fp32" if execution.dtype == "fp32" else "bf16",
        attention="flash" if alike else execution.attention,
        zero_stage=2 if execution.zero_stage else 0,
        activation_checkpointing=execution.activation_checkpointing,
    )


@lru_cache(maxsize=4096)
def _activations(
    model: TrainedModel, execution: Execution, size: tuple[int, int, int], *, accumulates: bool
) -> dict[str, dict[str, int]]:
    """What a micro-batch adds in every phase of its forward and backward pass."""
    layers = model.shape.language.layers
    traced = min(layers, TRACED_LAYERS)
    most = _phases(model, execution, size, layers=traced, accumulates=accumulates)
    if layers == traced:
        return most
    fewer = _phases(model, execution, size, layers=traced - 1, accumulates=accumulates)
    more = layers - traced
    return {
        phase: {
            part: bytes_ + more * (bytes_ - fewer[phase].get(part, 0))
            for part, bytes_ in parts.items()
        }
        for phase, parts in most.items()
    }


def _phases(
    model: TrainedModel,
    execution: Execution,
    size: tuple[int, int, int],
    *,
    layers: int,
    accumulates: bool,
) -> dict[str, dict[str, int]]:
    """Bytes by phase and part; of the layers the first and the last."""
    named = {}
    found = peaks(model, execution, size, layers=layers, accumulates=accumulates)
    for phase, parts in found.items():
        number = phase.removeprefix("backward pass of layer ")
        if number == phase:
            named[phase] = parts
        elif number == "0":
            named["backward pass of the first layer"] = parts
        if number == str(layers - 1):
            named["backward pass of the last layer"] = parts
    return named


def _inputs(model: TrainedModel, micro_batch: MicroBatchShape, images: int) -> int:
    """The micro-batch on the device: ids, positions, image slots, targets, and pixels in fp32."""
    slots = 16 * min(images * model.shape.image_tokens, micro_batch.tokens)
    text = 16 * micro_batch.tokens + 20 * micro_batch.label_positions
    views = images * model.shape.connector.views
    return text + slots + views * 12 * model.shape.pixels**2


def _features(
    model: TrainedModel, execution: Execution, micro_batch: MicroBatchShape, images: int
) -> int:
    """What is left of the tower while the language model runs: dense features, pixels, inputs. Of a
    trained tower dense features are traced.
    """
    shape, width = model.shape, DTYPE_BYTES[execution.dtype]
    pixels = 3 * shape.tower.image_size**2 * shape.connector.views
    features = shape.connector.features * shape.connector.feature_width
    features *= not model.trains_tower
    handed = pixels + features + shape.windows
    return _inputs(model, micro_batch, images) + images * width * handed


def _tower_pass(
    model: TrainedModel, execution: Execution, micro_batch: MicroBatchShape, images: int
) -> int:
    """The tower's own peak, in the MLP of its last block: nothing is saved for a backward pass.

    CLIP's activation x * sigmoid(1.702 x) has three tensors of the MLP's width alive, SigLIP's GELU
    two.
    """
    tower, width = model.shape.tower, DTYPE_BYTES[execution.dtype]
    inner = (3 if tower.has_cls else 2) * tower.intermediate
    block = tower.tokens * (3 * tower.hidden + inner)
    kept = (model.shape.connector.states + 1) * tower.patches * tower.hidden
    views = images * model.shape.connector.views
    passing = views if model.shape.connector.views == 1 else min(views, VIEWS_PER_PASS)
    pixels = 3 * tower.image_size**2
    # What passed already, and what waits.
    done = (views - passing) * model.shape.connector.features // model.shape.connector.views
    others = (views - passing) * pixels + done * model.shape.connector.feature_width
    first = width * (passing * (block + kept + pixels) + others)
    return _inputs(model, micro_batch, images) + max(first, _second_pass(model, width, images))


def _second_pass(model: TrainedModel, width: int, images: int) -> int:
    """The high-resolution tower's own peak, behind the first one: some images at a time, in a block
    of the first stage or where the widest one is interpolated in fp32.
    """
    conv, shape = model.shape.high_resolution, model.shape
    if conv is None:
        return 0
    passing = min(images, IMAGES_PER_PASS)
    once = max(
        width * conv.pass_elements(shape.pixels), SINGLE * conv.widened_elements(shape.pixels)
    )
    features = shape.connector.features * shape.connector.feature_width
    return width * images * (features + 3 * shape.pixels**2 + shape.windows) + passing * once
