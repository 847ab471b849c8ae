"""What a model is put together from: what is inspected before a run directory exists."""

from pathlib import Path

from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.part import Part, PositiveInt
from densekit.spec.types import Positions


class ModelParts(Part):
    """The folders and files of one model, and how much of it a run uses."""

    language_model: Path
    vision_tower: Path
    connector: Connector
    connector_weights: Path | None
    """Projector weights to start from, where a recipe names a file."""
    max_length: PositiveInt
    """Tokens of the longest sequence."""
    high_resolution_tower: Path | None = None
    """The second tower, where the connector mines."""
    anyres: AnyRes | None = None
    """Sizes and order of an image's tiles, where it has several."""
    positions: Positions = "exact"
    """What rotary tables are computed from."""
