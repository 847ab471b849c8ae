"""Opening image files: which formats are read, and that whatever a decoder raises is a DataError.

Pillow picks a decoder by content, not by name, and some of its decoders start a program (EPS starts
Ghostscript) or hand the file to somebody else. So only raster formats that Pillow decodes itself
are read.
"""

import functools
import io
import os
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from densekit.errors import DataError

FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
    "PCX",
    "SGI",
    "QOI",
    "ICO",
    "DDS",
    "BLP",
)
"""Pillow's names of the formats that are read, as far as the Pillow here has them."""
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes with more than 8 bits a channel, whose conversion to RGB cuts values off (docs/upstream.md,
1.10).
"""
REMEDY = "replace it or remove its entry"


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(file: IO[bytes]) -> Image.Image:
    return Image.open(file, formats=_formats())


def decode(data: bytes, name: object) -> tuple[Image.Image, str]:
    """The image in a file's bytes, decoded fully, as RGB, and the file's own mode.

    Raises DataError, which names `name`.
    """
    try:
        with _open(io.BytesIO(data)) as image:
            return image.convert("RGB"), image.mode
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"image {name} cannot be decoded ({_reason(error)}); {REMEDY}") from None


def examine(path: Path) -> bool:
    """Whether an image has more than 8 bits a channel; only its header is read.

    Raises DataError with the reason alone for a file that is empty, no image, or of a format that
    is not read.
    """
    try:
        # Without blocking: a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file, _open(file) as image:
            if min(image.size) < 1:
                raise ValueError(f"its size is {image.size[0]} x {image.size[1]}")
            return image.mode in DEEP_MODES
    except Exception as error:  # decoders raise whatever they like
        raise DataError(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text would name a buffer
        return "not an image, or of a format that is not read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
