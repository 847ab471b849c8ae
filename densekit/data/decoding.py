"""Opening image files: which formats are read, and that whatever a decoder raises is a DataError.

Pillow picks a decoder by content, not by name, and some of its decoders start a program (EPS starts
Ghostscript) or hand the file to somebody else. So only raster formats that Pillow decodes itself
are read.
"""

import functools
import io
import os
import warnings
from dataclasses import dataclass
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
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
ORIENTATION = 0x0112
"""Tag of EXIF."""
REMEDY = "replace it or remove its entry"


@functools.cache
def _formats() -> list[str]:
    Image.init()
    # Of broken EXIF and large images, by lines of its source: the doctor finds what matters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
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
        raise DataError(f"image {name} cannot be decoded ({reason(error)}); {REMEDY}") from None


def decode_palette(data: bytes, name: object) -> Image.Image | None:
    """The image in a file's bytes where it has a palette, decoded fully and not converted; None for
    any other. Raises DataError, which names `name`.
    """
    try:
        with _open(io.BytesIO(data)) as image:
            return image.copy() if image.mode == "P" else None
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"image {name} cannot be decoded ({reason(error)}); {REMEDY}") from None


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image file says of itself in front of its pixels."""

    format: str
    """Pillow's name: one of FORMATS."""
    mode: str
    """Pillow's name of the channels."""
    width: int
    height: int
    animated: bool
    """It has more than one frame."""
    alpha: bool
    """It has transparency."""
    orientation: int
    """Of EXIF, 1 to 8; 1: as stored, or nothing said."""

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits a channel."""
        return self.mode in DEEP_MODES


def read_header(file: IO[bytes]) -> ImageHeader:
    """The header of an image. Raises whatever Pillow's decoders raise, and ValueError for a size of
    0.
    """
    with _open(file) as image:
        if min(image.size) < 1:
            raise ValueError(f"its size is {image.size[0]} x {image.size[1]}")
        return ImageHeader(
            format=image.format or "",
            mode=image.mode,
            width=image.size[0],
            height=image.size[1],
            animated=bool(getattr(image, "is_animated", False)),
            alpha=image.mode in ALPHA_MODES or "transparency" in image.info,
            orientation=_orientation(image),
        )


def examine(path: Path) -> bool:
    """Whether an image has more than 8 bits a channel; only its header is read. Raises as
    header_of.
    """
    return header_of(path).deep


def header_of(path: Path) -> ImageHeader:
    """The header of an image file.

    Raises DataError with the reason alone for a file that is empty, no image, or of a format that
    is not read.
    """
    try:
        # Without blocking: a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return read_header(file)
    except Exception as error:  # decoders raise whatever they like
        raise DataError(reason(error)) from None


def _orientation(image: Image.Image) -> int:
    """Of EXIF, where it is in front of the pixels: looking for it behind them would decode them."""
    if "exif" not in image.info and image.format != "TIFF":
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF; the pixels may be good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def reason(error: Exception) -> str:
    """What a decoder's error says, in a few words."""
    if isinstance(error, UnidentifiedImageError):  # its own text would name a buffer
        return "not an image, or of a format that is not read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
