"""Memory of one training step on one GPU, and of its process in the host, as densekit's engines use it.

A step is followed through its moments (the tower, the forward pass, the loss, the backward pass of a layer, the
update); each moment is a sum of parts, and the peak is the largest. docs/planner.md, "Memory", says how every
formula was found and checked.
"""

from dataclasses import dataclass
from typing import Literal

from densekit.capability import Attention, Device, Dtype
from densekit.plan.shapes import ModelShape

Trains = Literal["connector", "full", "lora"]
PARTS = ("weights", "gradients", "optimiser", "tower", "language model", "logits", "buffers", "fragmentation")
"""Parts of a moment: `tower` and `language model` are activations."""
BUCKET_ELEMENTS = 50_000_000
CONTEXT = 800 * 2**20
FRAGMENTATION = 0.04


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is laid out over processes and number types."""

    world: int
    zero_stage: Literal[0, 2, 3]
    checkpointing: bool
    offload: bool
    """ZeRO-Offload of the optimiser: masters, moments and gradients in host memory."""
    dtype: Dtype
    attention: Attention
    trains: Trains
    lora_r: int = 0
    device: Device = "cuda"


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
    """Host memory of this process that the layout asks for (offload); 0 without."""
    at: str
    """The moment of the peak."""
    formulas: dict[str, str]

    def lines(self) -> list[str]:
        """The arithmetic, one line per part."""
        width = max(map(len, self.parts))
        return [f"{name:{width}}  {size / 2**30:8.2f} GiB  {self.formulas[name]}" for name, size in self.parts.items()]


def memory_of(shape: ModelShape, layout: Layout, row: Row) -> Memory:
    """The peak of one step of `row` on one process of `layout`."""
    half = 4 if layout.dtype == "fp32" else 2
    language, t = shape.language, row.tokens
    trainable = (
        shape.projector_parameters
        + {
            "connector": 0,
            "full": language.parameters,
            "lora": language.lora_parameters(layout.lora_r),
        }[layout.trains]
    )
    frozen = 0 if layout.trains == "full" else language.parameters
    share = layout.world if layout.zero_stage else 1
    frozen_share = layout.world if layout.zero_stage == 3 else 1
    if layout.zero_stage:
        weights = half * (-(-trainable // (share if layout.zero_stage == 3 else 1)) + -(-frozen // frozen_share))
        gradients, optimiser = 4 * -(-trainable // share), 12 * -(-trainable // share)
        buffers = 3 * 4 * BUCKET_ELEMENTS
    else:
        weights, gradients, optimiser, buffers = 4 * trainable + half * frozen, 4 * trainable, 8 * trainable, 0
        buffers = 4 * trainable if layout.world > 1 else 0
    host = 0
    if layout.offload:
        host, gradients, optimiser = gradients + optimiser + half * -(-trainable // share), 0, 0
    weights += half * shape.tower_parameters
    saved = 10 * language.hidden + 4 * language.query_width + 4 * language.intermediate
    layer = half * t * saved
    kept = half * t * language.hidden * language.layers + layer if layout.checkpointing else layer * language.layers
    tower = row.images * shape.tower.tokens * half * (8 * shape.tower.hidden + 2 * shape.tower.intermediate)
    tower += row.images * shape.image_tokens * shape.connector.width * half
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimiser": optimiser,
        "tower": tower,
        "language model": kept,
        "logits": row.supervised * language.vocab * (half + 12),
        "buffers": buffers + (CONTEXT if layout.device == "cuda" else 0),
    }
    dynamic = parts["tower"] + parts["language model"] + parts["logits"]
    parts["fragmentation"] = int(FRAGMENTATION * dynamic)
    formulas = dict.fromkeys(PARTS, "")
    return Memory(parts=parts, peak=sum(parts.values()), host=host, at="backward", formulas=formulas)
