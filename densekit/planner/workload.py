"""What a recipe's optimizer step has to compute, whatever carries it out."""

from dataclasses import dataclass, replace

from densekit.planner.certificates import cached_lengths
from densekit.planner.lengths import AverageSample, average_sample, lengths_of
from densekit.spec.architectures import ModelShape, shape_of
from densekit.spec.math import Lora, Math
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Trains


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model and what of it has gradients."""

    shape: ModelShape
    trains: Trains
    lora_r: int = 0
    """Rank of the adapters; 0 without LoRA."""
    lora_dropout: bool = True
    """Whether adapters keep a dropout mask for the backward pass."""
    trains_tower: bool = False
    """Whether the vision tower has gradients."""

    @classmethod
    def of(cls, recipe: Recipe | Math, shape: ModelShape) -> "TrainedModel":
        """What a recipe trains of a model of this shape."""
        lora = recipe.lora
        return cls(
            shape=shape,
            trains=recipe.trains,
            lora_r=lora.r if lora else 0,
            lora_dropout=bool(lora and lora.dropout),
            trains_tower=recipe.trains_tower,
        )

    @property
    def trained(self) -> int:
        """Weights with gradients: the projector, and with it the language model or its adapters,
        and a trained tower.
        """
        language = self.shape.language
        more = {
            "connector": 0,
            "full": language.parameters,
            "lora": language.lora_parameters(self.lora_r),
        }
        tower = self.shape.tower_parameters if self.trains_tower else 0
        return self.shape.projector_parameters + more[self.trains] + tower

    @property
    def frozen(self) -> int:
        """Weights of the language model without gradients."""
        return 0 if self.trains == "full" else self.shape.language.parameters


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
        return cls(
            name=recipe.name,
            model=TrainedModel.of(recipe, shape),
            sample=average_sample(recipe, lengths, shape.image_tokens),
            lengths=lengths.source,
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
        tokens, image = tokens or samples * self.max_length, self.model.shape.image_tokens
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
