"""AnyRes: an image as several tiles of the tower's size, and the order of their tokens.

Arithmetic of the official code (docs/upstream.md, Q12; LLaVA-NeXT): everything follows from the
width and height of the original image.
"""

from collections.abc import Iterator
from math import ceil, inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from densekit.spec.part import Part, PositiveInt

MAX_TILES = 64
"""Of a grid."""
NEWLINE = -1
"""In an order of tokens: the newline vector."""
Merge = Literal["spatial_unpad", "spatial", "flat"]


class AnyRes(Part):
    """The sizes that an image may be laid out in, and how its tiles become one sequence."""

    pinpoints: Annotated[tuple[tuple[PositiveInt, PositiveInt], ...], Field(min_length=1)]
    """Width and height in pixels, each a multiple of the tower's input; the first of equals wins.
    """
    merge: Merge
    """spatial_unpad: the whole image, then rows of the grid without its padding, each ended by a
    trained newline vector; spatial: the grid as it is, no newline; flat: tile after tile.
    """

    @model_validator(mode="after")
    def _each_once(self) -> "AnyRes":
        twice = sorted({each for each in self.pinpoints if self.pinpoints.count(each) > 1})
        if twice:
            raise ValueError(f"pinpoint {list(twice[0])} is listed twice: list each size once")
        return self

    @property
    def has_newline(self) -> bool:
        """Whether there is a newline vector."""
        return self.merge == "spatial_unpad"

    def check_tile(self, tile: int) -> None:
        """Raise ValueError for pinpoints that are no grids of tiles of so many pixels a side."""
        for width, height in self.pinpoints:
            if width % tile or height % tile:
                raise ValueError(
                    f"pinpoint [{width}, {height}] is no multiple of the tower's {tile} pixels: "
                    f"give widths and heights of whole tiles, for example [{tile}, {2 * tile}]"
                )
            if width * height // tile**2 > MAX_TILES:
                raise ValueError(
                    f"pinpoint [{width}, {height}] has {width * height // tile**2} tiles of {tile} "
                    f"pixels; at most {MAX_TILES} are laid out"
                )

    def chosen(self, size: tuple[int, int]) -> tuple[int, int]:
        """The pinpoint for an image of (width, height): the largest effective resolution, then the
        least wasted one.
        """
        width, height = size
        best, most, least = self.pinpoints[0], 0, inf
        for across, down in self.pinpoints:
            scale = min(across / width, down / height)
            effective = min(int(width * scale) * int(height * scale), width * height)
            waste = across * down - effective
            if effective > most or (effective == most and waste < least):
                best, most, least = (across, down), effective, waste
        return best

    def grid(self, size: tuple[int, int], tile: int) -> tuple[int, int]:
        """Columns and rows of tiles of an image of (width, height)."""
        across, down = self.chosen(size)
        return across // tile, down // tile

    def order(self, size: tuple[int, int], *, tile: int, side: int) -> list[int]:
        """Which feature token comes where: indices into the tokens of the base tile and of the
        grid's tiles, row by row, each tile of `side` x `side`; NEWLINE for the newline vector.
        """
        columns, rows = self.grid(size, tile)
        base, whole = [*range(side**2)], side**2 * (1 + columns * rows)
        if self.merge == "flat":
            return [*range(whole)]
        top, bottom, left, right = 0, rows * side, 0, columns * side
        if self.has_newline:
            top, bottom, left, right = unpadded(size, columns * side, rows * side)
        order = base
        for y in range(top, bottom):
            order += _row(y, left, right, columns=columns, side=side)
            if self.has_newline:
                order.append(NEWLINE)
        return order

    def max_tokens(self, *, tile: int, side: int) -> int:
        """Tokens of the image that has most: one that fills the largest grid."""
        found = []
        for across, down in self.pinpoints:
            columns, rows = across // tile, down // tile
            found.append(rows * side * (columns * side + self.has_newline))
        return side**2 + max(found)

    def max_tiles(self, tile: int) -> int:
        """Tiles of an image at most, the base tile among them."""
        return 1 + max(across * down for across, down in self.pinpoints) // tile**2


def unpadded(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what an image of (width, height) covers of a grid of so many
    tokens, without rounding: an odd remainder stays.
    """
    across, down = size
    if across / down > width / height:
        padding = (height - int(down * (width / across))) // 2
        return padding, height - padding, 0, width
    padding = (width - int(across * (height / down))) // 2
    return 0, height, padding, width - padding


def fitted(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The size to which an image is resized to fit inside `target`."""
    (width, height), (across, down) = size, target
    horizontal, vertical = across / width, down / height
    if horizontal < vertical:
        return across, min(ceil(height * horizontal), down)
    return min(ceil(width * vertical), across), down


def _row(y: int, left: int, right: int, *, columns: int, side: int) -> Iterator[int]:
    """Tokens of a row of the grid; tile 0 is the base tile."""
    row, inside = divmod(y, side)
    for x in range(left, right):
        column, within = divmod(x, side)
        yield (1 + row * columns + column) * side**2 + inside * side + within
