"""Pixels: an image file to uint8, resized and cropped as the official pipeline does."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.spec.types import AspectRatio


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """One image as the trainer read it."""

    pixels: np.ndarray
    """uint8 [3, S, S]."""
    digest: str
    """First 16 hex digits of the SHA-256 of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Resizing and normalisation of one vision tower, read from its preprocessor_config.json."""

    resize: Literal["shortest_edge", "squash"]
    """CLIP: shortest edge to `size`, then centre crop; SigLIP: both edges to `size`, aspect ratio
    lost.
    """
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect_ratio: AspectRatio

    @classmethod
    def from_pretrained(cls, directory: Path, aspect_ratio: AspectRatio) -> "ImageProcessor":
        """Read preprocessor_config.json; DataError when it is missing or not CLIP's or SigLIP's
        kind.
        """
        path = directory / "preprocessor_config.json"
        config = read_object(path, remedy="copy it from the vision tower's repository")
        try:
            size = config["size"]
            mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
            shortest = size if isinstance(size, int) else size.get("shortest_edge")
            edge = shortest or size["height"]
            if not shortest and size["height"] != size["width"]:
                raise ValueError(f"size {size} is not square")
            if config.get("resample", 3) != Image.Resampling.BICUBIC:
                raise ValueError(f"resample {config['resample']} is not bicubic (3)")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"vision tower: {path} cannot be used: {error!r}") from None
        return cls(
            resize="shortest_edge" if shortest else "squash",
            size=edge,
            mean=mean,
            std=std,
            aspect_ratio=aspect_ratio,
        )

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An image of any size and mode -> uint8 [3, size, size], as the official pipeline resizes
        it.
        """
        image = image.convert("RGB")
        if self.aspect_ratio == "pad":
            image = self._pad_to_square(image)
        if self.resize == "squash":
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        else:
            short = min(image.size)
            width, height = (
                self.size if edge == short else int(self.size * edge / short) for edge in image.size
            )
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def _pad_to_square(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if width == height:
            return image
        edge = max(width, height)
        colour = tuple(int(value * 255) for value in self.mean)
        square = Image.new("RGB", (edge, edge), colour)
        square.paste(image, ((edge - width) // 2, (edge - height) // 2))
        return square

    def lookup_table(self) -> np.ndarray:
        """float32 [256, 3]: the normalised value of every uint8 in every channel.

        Built in the official order of operations: rescale in float64, round to float32, minus mean,
        over std.
        """
        rescaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)[:, None]
        table = (rescaled - np.array(self.mean, dtype=np.float32)) / np.array(
            self.std, dtype=np.float32
        )
        return table.astype(np.float32)


def read_image(path: Path) -> tuple[Image.Image, str]:
    """Decode an image file fully; returns it with the first 16 hex digits of the SHA-256 of the
    bytes read.

    Raises DataError naming the file when it is missing or damaged.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB"), hashlib.sha256(data).hexdigest()[:16]
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist") from None
    except UnidentifiedImageError:  # its own text would name the buffer, not the file
        raise DataError(
            f"image {path} cannot be decoded (not an image); replace it or remove its entry"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {path} cannot be decoded ({error}); replace it or remove its entry"
        ) from None


def open_image(path: Path) -> Image.Image:
    """The image alone; errors as read_image."""
    return read_image(path)[0]
