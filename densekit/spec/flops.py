"""Floating-point operations of one optimizer step, part by part: frozen, trained, recomputed."""

from dataclasses import dataclass

from densekit.spec.trained_model import TrainedModel

FLASH_BACKWARD = 2.5
"""Backward over forward of attention: two products become four, and the scores are recomputed."""
ATTENTION_BACKWARD = 2.0
"""The same without what is recomputed."""


@dataclass(frozen=True, kw_only=True)
class AverageSample:
    """An average sample as the language model sees it."""

    tokens: float
    squares: float
    """Mean of the squared length: what causal attention costs."""
    images: float
    label_positions: float


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of some samples, by part; a multiplication with an addition is two."""

    parts: dict[str, float]
    formulas: dict[str, str]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def flops_of(
    model: TrainedModel,
    sample: AverageSample,
    samples: float,
    *,
    activation_checkpointing: bool,
    attention_backward: float = FLASH_BACKWARD,
) -> Flops:
    """Operations of `samples` average samples, forward and backward.

    A weight costs 2 operations per token forward, 2 for the gradient of its input, 2 for its own
    where it is trained, and 2 more where activation checkpointing repeats the forward pass. The
    connector stands before the language model, so gradients of activations go through all of it in
    every stage. lm_head runs on label positions only; a frozen tower has no backward pass.
    """
    shape, trains = model.shape, model.trains
    language, tower, last = shape.language, shape.tower, shape.connector.last_layer
    tokens, images = samples * sample.tokens, samples * sample.images
    again = int(activation_checkpointing)
    full, tuned = int(trains == "full"), int(model.trains_tower)
    in_layers = language.layers * language.layer_linear_parameters
    adapters = language.lora_parameters(model.lora_r) if trains == "lora" else 0
    tower_linear = last * tower.block_parameters
    tower_scores = last * 4 * tower.tokens**2 * tower.hidden
    hidden, width = language.hidden, shape.connector.width
    connector = shape.connector.connector
    passed = connector.passed_tokens(tower.patches)
    # Forward and their own gradients; the frozen tower takes none.
    learned = 4 * passed * shape.connector.learned // max(1, connector.modules)
    views = shape.connector.typical_views
    projected = views * shape.connector.projected // shape.connector.views
    per_image = projected * hidden * (4 * width + 6 * hidden) + views * learned
    mining, conv, second = connector.mining, shape.high_resolution, 0
    if mining is not None and conv is not None:
        per_image += mining.operations(tower.patches, tower.hidden, conv.channels)
        second = conv.operations(mining.image_size)
    parts = {
        "tower": images
        * views
        * (
            2 * tower.tokens * tower_linear * (1 + tuned * (2 + again))
            + tower_scores * (1 + tuned * (attention_backward + again))
            + second
        ),
        "projector": images * per_image,
        "layers": tokens * 2 * in_layers * (2 + full + again),
        "adapters": tokens * 2 * adapters * (3 + again),
        "attention": samples
        * sample.squares
        * 2
        * language.layers
        * language.query_width
        * (1 + attention_backward + again),
        "lm_head": samples * sample.label_positions * 2 * language.vocab * hidden * (2 + full),
    }
    beside = ", and a second tower" if second else ""
    weights, recomputed = ", weights 1" * full, ", recomputed forward 1" * again
    passes = f"forward 1, activations' gradients 1{weights}{recomputed}"
    formulas = {
        "tower": f"{last} blocks, {'forward and backward' if tuned else 'forward only'}, "
        f"{images * views:.0f} views of {tower.tokens} tokens{beside}",
        "projector": f"{images * projected:.0f} image tokens, forward and backward"
        + ", with the connector's modules" * bool(learned)
        + ", with patch info mining" * bool(second),
        "layers": f"2 x {in_layers / 1e9:.2f}e9 weights x {tokens:.0f} tokens x ({passes})",
        "adapters": f"2 x {adapters / 1e6:.1f}e6 weights of LoRA x tokens x {3 + again}",
        "attention": f"causal scores, backward {attention_backward:g} times forward",
        "lm_head": f"{samples * sample.label_positions:.0f} label positions x {language.vocab} "
        "tokens of vocabulary",
    }
    return Flops(parts=parts, formulas=formulas)


def model_flops(model: TrainedModel, sample: AverageSample, samples: float) -> float:
    """Operations that `samples` average samples need, whatever is recomputed besides: what model
    FLOPs utilisation (MFU) counts.
    """
    return flops_of(
        model,
        sample,
        samples,
        activation_checkpointing=False,
        attention_backward=ATTENTION_BACKWARD,
    ).total
