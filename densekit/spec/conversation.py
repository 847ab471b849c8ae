"""How conversations become the prompts of a trained model."""

from densekit.spec.part import Part, PositiveInt
from densekit.spec.types import AspectRatio, Semantics


class ConversationSettings(Part):
    """What a model was trained with, and its prompts have to be made with."""

    template: str
    semantics: Semantics
    """Of conversations as ids (L1)."""
    image_aspect_ratio: AspectRatio
    max_length: PositiveInt
    """Of a sequence with its image's tokens."""
