"""Tiles of an image and the order of their tokens, for any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.errors import UsageError
from densekit.recipes.load import load_recipe
from densekit.spec.anyres import NEWLINE, AnyRes, fitted, unpadded
from densekit.spec.architectures import shape_of
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout

CLIP, SIGLIP = (336, 24), (384, 27)
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def layout(tile: int, side: int, merge: str = "spatial_unpad") -> ImageLayout:
    pinpoints = tuple((columns * tile, rows * tile) for columns, rows in GRIDS)
    return ImageLayout(
        patches=side**2,
        connector=Connector(kind="none"),
        anyres=AnyRes(pinpoints=pinpoints, merge=merge),
        tile=tile,
    )


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([CLIP, SIGLIP]))
def test_tokens_are_the_base_and_the_rows_that_an_image_covers(
    width: int, height: int, tower: tuple[int, int]
) -> None:
    tile, side = tower
    found = layout(tile, side)
    assert found.anyres is not None
    columns, rows = found.anyres.grid((width, height), tile)
    top, bottom, left, right = unpadded((width, height), columns * side, rows * side)
    tokens = found.tokens((width, height))
    assert tokens == side**2 + (bottom - top) * (right - left + 1)
    assert found.min_tokens <= tokens <= found.max_tokens
    assert found.tiles((width, height)) == 1 + columns * rows <= found.max_tiles
    order = found.order((width, height))
    own = [index for index in order if index != NEWLINE]
    assert len({*own}) == len(own) and max(own) < (1 + columns * rows) * side**2
    assert order[: side**2] == (*range(side**2),)
    across, down = fitted((width, height), found.anyres.chosen((width, height)))
    chosen = found.anyres.chosen((width, height))
    assert across <= chosen[0] and down <= chosen[1] and (across, down) != (0, 0)
    assert across == chosen[0] or down == chosen[1]


@given(st.integers(1009, 4000), st.integers(1009, 4000))
def test_a_transposed_image_takes_the_transposed_grid(width: int, height: int) -> None:
    """A square one, and one that fits into several grids, takes the first of equals."""
    anyres = layout(*CLIP).anyres
    assert anyres is not None
    if width != height:
        assert anyres.grid((height, width), 336) == anyres.grid((width, height), 336)[::-1]


def test_sizes_that_are_known() -> None:
    assert layout(*CLIP).tokens((640, 480)) == 2340
    assert layout(*SIGLIP).tokens((640, 480)) == 2929
    assert (layout(*CLIP).max_tokens, layout(*SIGLIP).max_tokens) == (2928, 3699)


def test_order_of_a_small_grid() -> None:
    """Two tiles side by side, two tokens a side; the picture covers all of it."""
    found = layout(2, 2).order((400, 200))
    assert [*found] == [0, 1, 2, 3, 4, 5, 8, 9, NEWLINE, 6, 7, 10, 11, NEWLINE]
    assert [*layout(2, 2, "spatial").order((400, 200))] == [*range(4), 4, 5, 8, 9, 6, 7, 10, 11]
    assert [*layout(2, 2, "flat").order((400, 200))] == [*range(12)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.anyres.pinpoints=[[336, 600]]"], "no multiple of the tower's 336 pixels"),
        (["data.anyres.pinpoints=[[33600, 336]]"], "has 100 tiles of 336 pixels; at most 64"),
        (["models.vision_tower=models:google/siglip-so400m-patch14-384"], "tower's 384 pixels"),
        (["data.anyres.pinpoints=[[336, 672], [336, 672]]"], "is listed twice"),
        (["data.anyres=null"], "image_aspect_ratio anyres needs data.anyres"),
        (["data.image_aspect_ratio=pad"], "image_aspect_ratio pad takes no data.anyres"),
        (["connector={kind: sti, layers: [7]}"], "kind sti adds tokens that lie in no grid"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shape_of(load_recipe("vicuna7b_clip_anyres_stage2", overrides))
