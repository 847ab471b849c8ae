"""Memory of one training step on one GPU, and of its process in the host, as densekit's engines use
it.

A step is followed through its moments: the tower, the forward pass, the loss, the backward pass of
the loss, of the last and the first layer and of the connector, the update. Each is a sum of parts;
the peak is the largest. docs/planner.md, "Memory" and "How it was checked", has the reasons.
"""

from dataclasses import dataclass
from functools import lru_cache

from densekit.planner.memory_trace.interpolate import peaks
from densekit.planner.memory_trace.model import GRADIENTS, KEPT, LANGUAGE, LOGITS, Settings
from densekit.planner.model_states import Layout, States
from densekit.spec.architectures import ModelShape
from densekit.spec.types import Trains

TOWER, BUFFERS = "tower", "buffers"
PARTS = ("weights", GRADIENTS, "optimiser", TOWER, LANGUAGE, LOGITS, BUFFERS, "fragmentation")
"""Parts of a moment: `tower` and `language model` are activations."""
FRAGMENTATION = 0.05
"""Of what comes and goes within a step (activations, logits, buffers): an allowance for blocks that
torch's allocator holds and cannot use, not measured.
"""
SIMULATED = 3
"""Layers that are followed one by one. Every moment is linear in their number, so more need not be.
"""

__all__ = ["PARTS", "Layout", "Memory", "Row", "Trains", "memory_of"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One micro-batch: a packed row."""

    samples: int
    tokens: int
    images: int
    supervised: int
    """Positions whose next token is a target: lm_head runs on these."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    parts: dict[str, int]
    """By the names of PARTS; they sum to `peak`."""
    peak: int
    host: int
    """Host memory of this process that an offloaded optimiser takes; 0 without."""
    at: str
    """The moment of the peak."""
    moments: dict[str, dict[str, int]]
    """The parts of every moment."""
    formulas: dict[str, str]
    """The arithmetic behind every part at the peak."""

    def lines(self) -> list[str]:
        """The arithmetic, one line per part."""
        width = max(map(len, self.parts))
        lines = [
            f"{name:{width}} {size / 2**30:8.2f} GiB  {self.formulas[name]}"
            for name, size in self.parts.items()
        ]
        lines.append(f"{'peak':{width}} {self.peak / 2**30:8.2f} GiB  in the {self.at}")
        if self.host:
            lines.append(f"{'host':{width}} {self.host / 2**30:8.2f} GiB  {self.formulas['host']}")
        return lines


def memory_of(shape: ModelShape, layout: Layout, row: Row) -> Memory:
    """The peak of one step of rows like `row` on one process of `layout`."""
    states = States(shape, layout)
    # A row without images feeds one zero image, and a row without samples one token
    # (densekit.train.collate).
    images, tokens, supervised = max(1, row.images), max(1, row.tokens), max(1, row.supervised)
    moments: dict[str, dict[str, int]] = {}
    for moment, parts in _activations(
        shape, _settings(shape, layout), tokens, images, supervised
    ).items():
        moments[moment] = _complete(states, moment, parts, _tower(shape, layout, row, images))
    moments["tower"] = _complete(states, "tower", {}, _tower_pass(shape, layout, row, images))
    update = _complete(states, "update", {}, 0)
    update[GRADIENTS] = states.gradients
    moments["update"] = update
    for parts in moments.values():
        moving = sum(parts[name] for name in (TOWER, LANGUAGE, LOGITS, BUFFERS)) - sum(
            _fixed(states).values()
        )
        parts["fragmentation"] = int(FRAGMENTATION * moving) if layout.device == "cuda" else 0
    at = max(moments, key=lambda moment: sum(moments[moment].values()))
    parts = {name: moments[at][name] for name in PARTS}
    return Memory(
        parts=parts,
        peak=sum(parts.values()),
        host=states.host,
        at=at,
        moments=moments,
        formulas=_formulas(shape, states, row, at, parts, moments),
    )


def _fixed(states: States) -> dict[str, int]:
    """Buffers that stay outside torch's allocator."""
    return {
        name: size for name, size in states.buffers("").items() if name in ("CUDA context", "NCCL")
    }


def _complete(states: States, moment: str, moving: dict[str, int], tower: int) -> dict[str, int]:
    """All parts of a moment, from the activations in it."""
    parts = dict.fromkeys(PARTS, 0) | moving
    layout = states.layout
    parts["weights"], parts["optimiser"] = states.weights, states.optimiser
    if layout.accumulates or layout.zero_stage:
        parts[GRADIENTS] = states.gradients
    parts[TOWER] += tower
    parts[BUFFERS] += sum(states.buffers(moment).values())
    return parts


def _settings(shape: ModelShape, layout: Layout) -> Settings:
    replicated = layout.zero_stage == 0
    # xformers differs from flash-attn in its repeated keys and values alone.
    alike = layout.attention == "xformers" and shape.language.heads == shape.language.kv_heads
    return Settings(
        trains=layout.trains,
        checkpointing=layout.checkpointing,
        attention="flash" if alike else layout.attention,
        on_gpu=layout.device == "cuda",
        width=layout.width,
        masters=replicated,
        keeps_gradients=replicated and not layout.accumulates,
        lora_r=layout.lora_r,
        lora_dropout=layout.lora_dropout,
    )


@lru_cache(maxsize=4096)
def _activations(
    shape: ModelShape, settings: Settings, tokens: int, images: int, supervised: int
) -> dict[str, dict[str, int]]:
    """What a row adds in every moment of its forward and backward pass."""
    layers = shape.language.layers
    most = _followed(shape, settings, tokens, images, supervised, min(layers, SIMULATED))
    if layers <= SIMULATED:
        return most
    fewer = _followed(shape, settings, tokens, images, supervised, SIMULATED - 1)
    more = layers - SIMULATED
    return {
        moment: {
            part: size + more * (size - fewer[moment].get(part, 0)) for part, size in parts.items()
        }
        for moment, parts in most.items()
    }


def _followed(
    shape: ModelShape, settings: Settings, tokens: int, images: int, supervised: int, layers: int
) -> dict[str, dict[str, int]]:
    named = {}
    for moment, parts in peaks(shape, settings, tokens, images, supervised, layers).items():
        number = moment.removeprefix("backward pass of layer ")
        if number == moment:
            named[moment] = parts
        elif number == "0":
            named["backward pass of the first layer"] = parts
        if number == str(layers - 1):
            named["backward pass of the last layer"] = parts
    return named


def _inputs(shape: ModelShape, row: Row, images: int) -> int:
    """The row on the device: ids and positions, slots, targets, and pixels in fp32."""
    slots = 16 * min(images * shape.image_tokens, row.tokens)
    return 16 * row.tokens + slots + 20 * row.supervised + images * 12 * shape.tower.image_size**2


def _tower(shape: ModelShape, layout: Layout, row: Row, images: int) -> int:
    """What is left of the tower while the language model runs: dense features, pixels, the row's
    inputs.
    """
    pixels = 3 * shape.tower.image_size**2 * layout.width
    features = shape.image_tokens * shape.connector.width * layout.width
    return _inputs(shape, row, images) + images * (pixels + features)


def _tower_pass(shape: ModelShape, layout: Layout, row: Row, images: int) -> int:
    """The tower's own peak, in the MLP of its last block: nothing is saved for a backward pass.

    CLIP's activation x * sigmoid(1.702 x) has three tensors of the MLP's width alive, SigLIP's GELU
    two.
    """
    tower, width = shape.tower, layout.width
    inner = (3 if tower.has_cls else 2) * tower.intermediate
    block = tower.tokens * (3 * tower.hidden + inner)
    kept = (shape.connector.states + 1) * tower.patches * tower.hidden
    pixels = 3 * tower.image_size**2
    return _inputs(shape, row, images) + images * width * (block + kept + pixels)


def _formulas(
    shape: ModelShape,
    states: States,
    row: Row,
    at: str,
    parts: dict[str, int],
    moments: dict[str, dict[str, int]],
) -> dict[str, str]:
    """Every part in words and numbers."""
    layout, language = states.layout, shape.language
    width, gib = layout.width, 2**30
    shared = f" / {layout.world} ranks" if layout.zero_stage else ""
    sharded = shared if layout.zero_stage == 3 else ""
    trained_width = width if layout.zero_stage else 4
    layers = f"{language.layers} layers"
    kept = moments[KEPT][LANGUAGE]
    buffers = states.buffers(at)
    casts = parts[BUFFERS] - sum(buffers.values())
    told = [f"{name} {size / gib:.2f}" for name, size in buffers.items()]
    told += [f"half-precision copies of trained weights {casts / gib:.2f}"] if casts else []
    return {
        "weights": f"{states.trained:,} trained x {trained_width} B{sharded} + {states.frozen:,} frozen x {width} B"
        f"{sharded} + tower {states.tower:,} x {width} B",
        GRADIENTS: "in host memory" if layout.offload else f"{states.trained:,} x 4 B{shared}",
        "optimiser": "in host memory"
        if layout.offload
        else f"{states.trained:,} x {states.optimiser // states.share} B{shared} (moments"
        + (", fp32 masters)" if states.optimiser > 8 * states.share else ")"),
        TOWER: f"{max(1, row.images)} images: {shape.image_tokens} tokens x {shape.connector.width} channels x "
        f"{width} B and pixels {3 * shape.tower.image_size**2} x {width + 4} B",
        LANGUAGE: f"{row.tokens:,} tokens: {layers} keep {kept / gib:.2f} GiB up to the loss, the {at} has "
        f"{parts[LANGUAGE] / gib:.2f}",
        LOGITS: f"{row.supervised:,} supervised positions x {language.vocab:,} tokens of vocabulary",
        BUFFERS: ", ".join(told) or "none",
        "fragmentation": f"{FRAGMENTATION:.0%} of activations, logits and buffers: an allowance",
        "host": f"{states.trained:,} x {states.host // states.share} B{shared} (masters, moments, gradients, staging)",
    }
