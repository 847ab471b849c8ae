"""What a recipe's optimizer step has to compute, whatever carries it out."""

from dataclasses import dataclass, replace

from densekit.planner.certificates import cached_lengths
from densekit.planner.lengths import COUNTED, average_sample, counted_sample, lengths_of
from densekit.spec.architectures import shape_of
from densekit.spec.flops import AverageSample
from densekit.spec.math import Lora
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class MicroBatchShape:
    """The size of one packed micro-batch."""

    samples: int
    tokens: int
    images: int
    label_positions: int
    """Positions whose next token is a target: lm_head runs on these."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One optimizer step of a recipe, as far as memory and time go."""

    name: str
    """Of the recipe."""
    model: TrainedModel
    sample: AverageSample
    lengths: str
    """Where the sample's length comes from."""
    global_batch_size: int
    max_length: int
    """Tokens of a sample at most, its image included."""
    text_only: bool
    """Whether samples without an image can be there, all of whose tokens have a label."""
    official_batch_size: int
    """Samples per device of the official scripts."""

    @classmethod
    def of(cls, recipe: Recipe, roots: Roots | None) -> "Workload":
        """A recipe with the shapes of its models and its average sample.

        Raises UsageError for models whose shape is not known, DataError for a config.json that
        cannot be read.
        """
        shape = shape_of(recipe, roots)
        lengths = lengths_of(recipe, cached_lengths(recipe, roots) if roots else None)
        sample, source = (
            average_sample(recipe, lengths, shape.connector.typical_tokens),
            lengths.source,
        )
        counted = counted_sample(recipe, roots, shape.connector.layout) if roots else None
        if counted is not None:
            sample, source = counted, COUNTED
        return cls(
            name=recipe.name,
            model=TrainedModel.of(recipe, shape),
            sample=sample,
            lengths=source,
            global_batch_size=recipe.global_batch_size,
            max_length=recipe.data.max_length,
            text_only=recipe.data.template != "plain",
            official_batch_size=recipe.reference.per_device_batch_size,
        )

    def with_lora(self, lora: Lora) -> "Workload":
        """The same with adapters in place of the whole language model."""
        model = replace(
            self.model,
            trains="lora",
            lora_r=lora.r,
            lora_dropout=bool(lora.dropout),
            trains_tower=False,
        )
        return replace(self, model=model)

    def worst_micro_batches(self, samples: int, tokens: int | None = None) -> list[MicroBatchShape]:
        """The largest there can be of at most so many samples and tokens (None: each as long as
        `max_length`): with as few images as fill it, with as many as fit, or text that has labels
        throughout.
        """
        tokens = tokens or samples * self.max_length
        image = self.model.shape.connector.min_tokens
        fewest = min(samples, -(-tokens // self.max_length))
        most = min(samples, max(fewest, tokens // (image + 1)))
        found = [
            MicroBatchShape(
                samples=images,
                tokens=tokens,
                images=images,
                label_positions=max(images, tokens - images * image),
            )
            for images in dict.fromkeys((fewest, most))
        ]
        if self.text_only:
            # A micro-batch without images feeds one zero image.
            found.append(
                MicroBatchShape(samples=fewest, tokens=tokens, images=1, label_positions=tokens)
            )
        return found

    def typical_micro_batch(self, samples: int) -> MicroBatchShape:
        """Average samples, each with an image."""
        return MicroBatchShape(
            samples=samples,
            tokens=round(samples * self.sample.tokens),
            images=samples,
            label_positions=max(1, round(samples * self.sample.label_positions)),
        )
