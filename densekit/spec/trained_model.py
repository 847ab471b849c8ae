"""A model, and what of it a recipe trains."""

from dataclasses import dataclass

from densekit.spec.architectures import ModelShape
from densekit.spec.math import Math
from densekit.spec.recipe import Recipe
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
