"""Drawing one coloured shape: every pixel follows from the arguments and the random generator."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (240, 210, 40),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Grey levels of the two backgrounds, 0 .. 255, far from every colour's brightness extremes.
BACKGROUNDS = {"light": 205, "dark": 75}
SMALLEST_SIDE, LARGEST_SIDE = 40, 90
JPEG_QUALITY = 92


def file_name(number: int) -> str:
    """Return the name of image `number`: even ones are JPEG, odd ones PNG."""
    return f"{number:06d}.{'png' if number % 2 else 'jpg'}"


def draw(
    file: Path, number: int, colour: str, shape: str, background: str, rng: np.random.Generator
) -> None:
    """Draw `shape` on a noisy background and save it as `file`.

    The sides are 40 to 90 pixels each, the shape 45 to 85 % of the shorter one. Every fourth PNG is
    a palette image and every fourth an RGBA one, because real data holds both.
    """
    from PIL import Image, ImageDraw

    width, height = (int(side) for side in rng.integers(SMALLEST_SIDE, LARGEST_SIDE + 1, size=2))
    noise = rng.normal(BACKGROUNDS[background], 4.0, size=(height, width, 1)) + rng.normal(
        0.0, 2.0, size=(height, width, 3)
    )
    picture = Image.fromarray(noise.round().clip(0, 255).astype(np.uint8))
    short = min(width, height)
    size = round(short * rng.uniform(0.45, 0.85))
    # Inside the central square: the CLIP preprocessing of stage 1 crops to it, and a caption must
    # stay true.
    left = (width - short) // 2 + int(rng.integers(0, short - size + 1))
    top = (height - short) // 2 + int(rng.integers(0, short - size + 1))
    shade = tuple(int(np.clip(level + rng.integers(-12, 13), 0, 255)) for level in COLOURS[colour])
    _paint(ImageDraw.Draw(picture), shape, left, top, size, shade)
    _save(picture, file, number)


def _paint(
    canvas: "ImageDraw.ImageDraw", shape: str, left: int, top: int, size: int, fill: tuple[int, ...]
) -> None:
    right, bottom = left + size - 1, top + size - 1
    if shape == "circle":
        canvas.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        canvas.rectangle((left, top, right, bottom), fill=fill)
    elif shape == "triangle":
        canvas.polygon([(left + size // 2, top), (right, bottom), (left, bottom)], fill=fill)
    else:
        third = size // 3
        canvas.rectangle((left + third, top, right - third, bottom), fill=fill)
        canvas.rectangle((left, top + third, right, bottom - third), fill=fill)


def _save(picture: "Image.Image", file: Path, number: int) -> None:
    if file.suffix == ".jpg":
        picture.save(file, quality=JPEG_QUALITY)
        return
    if number % 8 == 3:
        from PIL import Image

        picture = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    elif number % 8 == 7:
        picture.putalpha(230)
    picture.save(file)
