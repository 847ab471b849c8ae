"""AnyRes in stock transformers: LlavaNextForConditionalGeneration, which merges the tiles of an
image as `spatial_unpad` does.

Its sizes are (height, width), where the official ones are (width, height). It rounds an image's
share of the grid to seven digits before it truncates, the official code does not: an image of a
rare size has a row or a column of tokens less or more there (tests/exchange/test_tiles.py).
"""

from typing import Any

from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from densekit.errors import DataError
from densekit.spec.anyres import AnyRes

ARCHITECTURE = "LlavaNextForConditionalGeneration"


def check_merge(anyres: AnyRes) -> None:
    """Raise DataError for a merge that it does not compute."""
    if anyres.merge != "spatial_unpad":
        raise DataError(
            f"data.anyres.merge {anyres.merge} cannot be written for stock transformers: its "
            "LlavaNext merges tiles as spatial_unpad does and in no other way; export with "
            "--format official or densekit"
        )


def pinpoints(anyres: AnyRes) -> list[list[int]]:
    """As transformers writes them: height before width, in the same order."""
    return [[height, width] for width, height in anyres.pinpoints]


def image_processor(anyres: AnyRes, **stock: Any) -> LlavaNextImageProcessorPil:
    """What makes tiles; `stock`: resizing and normalisation of one tile."""
    return LlavaNextImageProcessorPil(image_grid_pinpoints=pinpoints(anyres), do_pad=True, **stock)
