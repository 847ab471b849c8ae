"""How an image becomes views of the vision tower, and tokens of the sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector

VIEWS_PER_PASS = 40
"""Views of AnyRes that pass a frozen tower at a time: eight images of five."""
PHOTOGRAPH = 640, 480
"""Width and height that stand for an average image where sizes matter and none is known."""


@dataclass(frozen=True, kw_only=True)
class ImageLayout:
    """One square view per image, resized or padded: every image has as many tokens as the next.
    Under AnyRes several views, and tokens that follow from the image's size.
    """

    patches: int
    """Patch tokens of one view, without CLS."""
    connector: Connector
    anyres: AnyRes | None = None
    tile: int = 0
    """Pixels of a view's side; needed for AnyRes."""

    @property
    def tile_tokens(self) -> int:
        """Feature tokens of one view."""
        return self.connector.tokens(self.patches)

    @property
    def varies(self) -> bool:
        """Whether tokens depend on the image's size."""
        return self.anyres is not None

    def tokens(self, image_size: tuple[int, int]) -> int:
        """Feature tokens of an image of (width, height) pixels."""
        assert min(image_size) > 0, image_size
        return len(self.order(image_size))

    def tiles(self, image_size: tuple[int, int]) -> int:
        """Views of an image of (width, height) pixels."""
        if self.anyres is None:
            return 1
        columns, rows = self.anyres.grid(image_size, self.tile)
        return 1 + columns * rows

    def order(self, image_size: tuple[int, int]) -> Sequence[int]:
        """Which feature token of the image's views comes where (AnyRes.order)."""
        if self.anyres is None:
            return range(self.tile_tokens)
        return _order(self.anyres, image_size, self.tile, isqrt(self.tile_tokens))

    @property
    def max_tokens(self) -> int:
        """Feature tokens of the image that has most."""
        if self.anyres is None:
            return self.tile_tokens
        return self.anyres.max_tokens(tile=self.tile, side=isqrt(self.tile_tokens))

    @property
    def min_tokens(self) -> int:
        """Feature tokens that every image has at least."""
        return self.tile_tokens

    @property
    def max_tiles(self) -> int:
        """Views of the image that has most."""
        return 1 if self.anyres is None else self.anyres.max_tiles(self.tile)


def check_anyres(anyres: AnyRes | None, connector: Connector, tile: int) -> None:
    """Raise ValueError for pinpoints that do not fit the tower, and for a connector whose tokens
    cannot be laid out as tiles.
    """
    if anyres is None:
        return
    anyres.check_tile(tile)
    if not connector.is_grid:
        raise ValueError(
            f"connector kind {connector.kind} adds tokens that lie in no grid, so the tiles of an "
            "image cannot be merged (the official code stops there too): use another kind, or "
            "another data.image_aspect_ratio"
        )


@lru_cache(maxsize=1024)
def _order(anyres: AnyRes, size: tuple[int, int], tile: int, side: int) -> tuple[int, ...]:
    return tuple(anyres.order(size, tile=tile, side=side))
