"""Pixels: an image file to uint8, resized and cropped as the official pipeline does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from densekit.data.decoding import DEEP_MODES, REMEDY, decode, header_of
from densekit.data.processor_values import Colour, Resize, normalisation, resizing
from densekit.errors import DataError
from densekit.files.json_files import read_file, read_object
from densekit.spec.anyres import AnyRes, fitted
from densekit.spec.mining import Mining
from densekit.spec.types import AspectRatio, Semantics

MAX_BYTES = 1 << 30
"""Of an image file."""
MAX_RESIZED = 1 << 30
"""Pixels of an image once it is padded to a square, or before its middle is cut out: one that is a
pixel high and long is blown up.
"""


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """One image as the trainer read it."""

    pixels: np.ndarray
    """uint8 [3, S, S], or [t, 3, S, S] under AnyRes, the whole image first."""
    size: tuple[int, int]
    """Width and height of the image itself."""
    digest: str
    """First 16 hex digits of the SHA-256 of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Resizing and normalisation of one vision tower, read from its preprocessor_config.json."""

    resize: Resize
    size: int
    mean: Colour
    std: Colour
    aspect_ratio: AspectRatio
    anyres: AnyRes | None = None

    @classmethod
    def from_pretrained(
        cls,
        directory: Path,
        aspect_ratio: AspectRatio,
        anyres: AnyRes | None = None,
        *,
        mining: Mining | None = None,
    ) -> "ImageProcessor":
        """Read preprocessor_config.json; DataError when it is missing or not CLIP's or SigLIP's
        kind, and for pinpoints that are no grids of its size. Where the connector mines, images
        are made at the size of the high-resolution tower.
        """
        assert (aspect_ratio == "anyres") == (anyres is not None), aspect_ratio
        path = directory / "preprocessor_config.json"
        config = read_object(path, remedy="copy it from the vision tower's repository")
        try:
            resize, size = resizing(config)
            mean, std = normalisation(config)
            if anyres is not None:
                anyres.check_tile(size)
        except KeyError as error:
            raise DataError(f"vision tower: {path} has no `{error.args[0]}`") from None
        except ValueError as error:
            raise DataError(f"vision tower: {path} cannot be used: {error}") from None
        return cls(
            resize=resize,
            size=size if mining is None else mining.image_size,
            mean=mean,
            std=std,
            aspect_ratio=aspect_ratio,
            anyres=anyres,
        )

    def views(self, image: Image.Image) -> np.ndarray:
        """The same as uint8 [t, 3, size, size]; one view where there is no AnyRes."""
        return self(image).reshape(-1, 3, self.size, self.size)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An image of any size and mode -> uint8 [3, size, size], as the official pipeline resizes
        it; under AnyRes [t, 3, size, size], the whole image, aspect ratio lost, and its tiles row
        by row. Raises DataError for an image that is too long for its height, or the other way.
        """
        if image.mode != "RGB":  # converting one that is copies it
            image = image.convert("RGB")
        if self.anyres is not None:
            return self._tiles(image, self.anyres)
        if self.aspect_ratio == "pad":
            image = self._pad_to_square(image)
        if self.resize == "squash":
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        else:
            short = min(image.size)
            width, height = (
                self.size if edge == short else int(self.size * edge / short) for edge in image.size
            )
            _check_room(image, width, height)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def _tiles(self, image: Image.Image, anyres: AnyRes) -> np.ndarray:
        across, down = anyres.chosen(image.size)
        width, height = fitted(image.size, (across, down))
        inside = image.resize((width, height), Image.Resampling.BICUBIC)
        whole = Image.new("RGB", (across, down), (0, 0, 0))
        whole.paste(inside, ((across - width) // 2, (down - height) // 2))
        base = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        grid = np.asarray(whole).reshape(down // self.size, self.size, across // self.size, -1, 3)
        # [rows, S, columns, S, 3] -> [rows * columns, 3, S, S]
        tiles = grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, self.size, self.size)
        return np.concatenate([np.asarray(base).transpose(2, 0, 1)[None], tiles])

    def _pad_to_square(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if width == height:
            return image
        edge = max(width, height)
        _check_room(image, edge, edge)
        square = Image.new("RGB", (edge, edge), self._colour)
        square.paste(image, ((edge - width) // 2, (edge - height) // 2))
        return square

    def padded_as_stored(self, image: Image.Image) -> Image.Image:
        """An image with a palette, padded to a square before it becomes RGB, as the official code
        does on some benchmarks: the square has a palette of its own, so that colours change.
        """
        width, height = image.size
        if width == height or self.aspect_ratio != "pad":
            return image
        edge = max(width, height)
        _check_room(image, edge, edge)
        square = Image.new(image.mode, (edge, edge), self._colour)
        square.paste(image, ((edge - width) // 2, (edge - height) // 2))
        return square

    @property
    def _colour(self) -> tuple[int, ...]:
        """What is padded with: the mean."""
        return tuple(int(value * 255) for value in self.mean)

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


def _check_room(image: Image.Image, width: int, height: int) -> None:
    """Raise DataError for an image that would be blown up to a size that no host RAM holds."""
    if width * height > MAX_RESIZED:
        raise DataError(
            f"an image of {image.width:,} x {image.height:,} pixels would become one of {width:,} "
            f"x {height:,} before it is {'shrunk' if width == height else 'cropped'}: crop it, or "
            "take its entry out"
        )


def read_image(path: Path, semantics: Semantics = "faithful") -> tuple[Image.Image, str]:
    """Decode an image file fully; returns it as RGB with the first 16 hex digits of the SHA-256 of
    the bytes read.

    More than 8 bits a channel are cut off as officially under `faithful` and refused under `fixed`
    (docs/upstream.md, 1.10). Raises DataError naming the file when it is missing or damaged.
    """
    try:
        data = read_file(path, limit=MAX_BYTES, remedy=REMEDY)
    except DataError as error:
        raise DataError(f"image {error}") from None
    image, mode = decode(data, path)
    if mode in DEEP_MODES and semantics == "fixed":
        raise DataError(
            f"image {path} has more than 8 bits a channel (mode {mode}), which the official "
            f"code cuts off; convert it to 8 bits, {REMEDY}"
        )
    return image, hashlib.sha256(data).hexdigest()[:16]


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header. Raises DataError naming the file."""
    try:
        header = header_of(path)
    except DataError as error:
        raise DataError(f"image {path} cannot be decoded ({error}); {REMEDY}") from None
    return header.width, header.height


def open_image(path: Path) -> Image.Image:
    """The image alone; errors as read_image."""
    return read_image(path)[0]
