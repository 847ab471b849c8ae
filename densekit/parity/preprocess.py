"""Recorded preprocessing of single images, under both aspect ratios and for both towers."""

from pathlib import Path
from typing import get_args

import numpy as np
import torch

from densekit.data.pixels import ImageProcessor, open_image
from densekit.errors import DataError
from densekit.model.preprocess import normalise
from densekit.parity.compare import Quantities
from densekit.spec.types import AspectRatio

SUBSAMPLED = {"shortest_edge": (0, 0, 5), "squash": (5, 7, 37)}
"""First row, first column and stride of the pixels that are kept, by how the processor resizes."""


def recorded_aspect_ratio(text: str) -> AspectRatio:
    """The aspect ratio of a recording. Raises DataError for one that densekit does not compute."""
    known: tuple[AspectRatio, ...] = get_args(AspectRatio)
    for ratio in known:
        if text == ratio:
            return ratio
    raise DataError(
        f"image_aspect_ratio {text} is not supported yet: record with {' or '.join(known)}"
    )


def check_image_preprocess(root: Path, quantities: Quantities) -> None:
    """(Sub-sampled) pixels of every image, their mean and standard deviation."""
    recorded = np.load(root / "extra" / "image_preprocess.npz")
    for key in recorded.files:
        tower, aspect, number, kind = key.split("_", 3)
        folder = root / "models" / f"{tower}_tiny"
        processor = ImageProcessor.from_pretrained(folder, recorded_aspect_ratio(aspect))
        raw = processor(open_image(root / "data" / "images" / f"img{number}.png"))
        table = torch.from_numpy(processor.lookup_table())
        pixels = normalise(torch.from_numpy(raw)[None], table)[0]
        if kind == "mean_std":
            wide = pixels.double().flatten(1)
            quantities.close(
                "pixel_statistics", torch.stack([wide.mean(-1), wide.std(-1)]), recorded[key], 1e-12
            )
            continue
        if recorded[key].shape != tuple(pixels.shape):
            row, column, stride = SUBSAMPLED[processor.resize]
            pixels = pixels[:, row::stride, column::stride]
        quantities.close("pixels", pixels, recorded[key], 0.0)
