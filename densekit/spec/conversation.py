"""How conversations become the prompts of a trained model."""

from pydantic import Field

from densekit.spec.anyres import AnyRes
from densekit.spec.part import Part, PositiveInt
from densekit.spec.types import AspectRatio, Semantics


class ConversationSettings(Part):
    """What a model was trained with, and its prompts have to be made with."""

    template: str
    semantics: Semantics
    """Of conversations as ids (L1)."""
    image_aspect_ratio: AspectRatio
    anyres: AnyRes | None = Field(default=None, exclude_if=lambda value: value is None)
    """Sizes and order of an image's tiles, where it has several."""
    max_length: PositiveInt
    """Of a sequence with its image's tokens."""
