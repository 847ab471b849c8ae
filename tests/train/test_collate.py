"""Collation: where tokens, image features and labels of packed samples come to lie."""

from dataclasses import replace

import numpy as np
import pytest

from densekit.data.pixels import ReadImage
from densekit.errors import DataError
from densekit.spec.anyres import NEWLINE, AnyRes
from densekit.spec.connector import Connector
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.spec.vision import ImageLayout
from densekit.text.sequence import ModelSequence
from densekit.train.collate import WeightedSample, pack

SIZE, TOKENS = 8, 3
LAYOUT = ImageLayout(patches=TOKENS, connector=Connector(kind="none"))


def sample(
    position: int, ids: list[int], *, image: bool, labels: tuple[int, ...] = ()
) -> WeightedSample:
    """One whose tokens at `labels` have a label."""
    kept = [token if at in labels else IGNORE_INDEX for at, token in enumerate(ids)]
    pixels = np.full((3, SIZE, SIZE), position, dtype=np.uint8)
    return WeightedSample(
        sequence=ModelSequence(np.array(ids), np.array(kept)),
        image=ReadImage(pixels=pixels, size=(SIZE, SIZE), digest="00") if image else None,
        weight=position + 0.5,
        position=position,
        sample_id=f"{position}:00",
    )


def test_image_slots_take_the_features_of_their_own_image() -> None:
    slot = IMAGE_TOKEN_ID
    batch = pack(
        [
            sample(0, [1, slot, slot, slot, 7], image=True),
            sample(1, [1, 2], image=False),
            sample(2, [1, 5, 6], image=True),  # an image without a tag: no slot takes its features
            sample(3, [1, slot, slot], image=True),  # cut off in the middle of its image
        ],
        layout=LAYOUT,
        image_size=SIZE,
    )
    assert batch.image_slots.tolist() == [1, 2, 3, 11, 12]
    assert batch.feature_index.tolist() == [0, 1, 2, 6, 7]
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert batch.input_ids.tolist() == [1, 0, 0, 0, 7, 1, 2, 1, 5, 6, 1, 0, 0]
    assert batch.cu_seqlens.tolist() == [0, 5, 7, 10, 13]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("slots", "image"), [(4, True), (6, True), (1, False)])
def test_slots_never_take_another_samples_features(slots: int, image: bool) -> None:
    odd = sample(0, [1, *[IMAGE_TOKEN_ID] * slots, 7], image=image)
    with pytest.raises(
        DataError, match=rf"sample 0:00: {slots} image slots and an image of \d tok"
    ):
        pack([odd, sample(1, [1, 2], image=True)], layout=LAYOUT, image_size=SIZE)


def test_a_label_lies_one_position_ahead_and_never_in_the_next_sequence() -> None:
    batch = pack(
        [
            sample(4, [1, 8, 9], image=False, labels=(1, 2)),
            sample(5, [3, 7], image=False, labels=(0, 1)),  # the first token has no predecessor
        ],
        layout=LAYOUT,
        image_size=SIZE,
    )
    assert batch.label_positions.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [8, 9, 7]
    assert batch.weights.tolist() == [4.5, 4.5, 5.5]
    assert (batch.positions, batch.sample_ids) == ((4, 5), ("4:00", "5:00"))


def test_a_rank_without_samples_gets_one_token_without_a_label() -> None:
    batch = pack([], layout=LAYOUT, image_size=SIZE)
    assert batch.input_ids.tolist() == [0] and batch.cu_seqlens.tolist() == [0, 1]
    assert batch.pixels.shape == (0, 3, SIZE, SIZE)
    assert not len(batch.label_positions) and not batch.sample_ids


def tiled(position: int, size: tuple[int, int], views: int, slots: int) -> WeightedSample:
    """A sample whose image has several views, and an image slot for each of its tokens."""
    plain = sample(position, [1, *[IMAGE_TOKEN_ID] * slots, 7], image=True)
    assert plain.image is not None
    pixels = np.full((views, 3, SIZE, SIZE), position, dtype=np.uint8)
    return replace(plain, image=replace(plain.image, pixels=pixels, size=size))


def test_tiles_take_their_own_features_and_the_newline_vector() -> None:
    """Two tokens a side: base tile, then rows of two tiles side by side."""
    anyres = AnyRes(pinpoints=((2 * SIZE, SIZE), (SIZE, 2 * SIZE)), merge="spatial_unpad")
    layout = ImageLayout(patches=4, connector=LAYOUT.connector, anyres=anyres, tile=SIZE)
    wide, tall = (400, 200), (200, 400)
    batch = pack(
        [
            tiled(0, wide, 3, 14),
            sample(1, [1, 2], image=False),
            tiled(2, tall, 3, 14),
            tiled(3, wide, 3, 6),  # cut off behind the first row
        ],
        layout=layout,
        image_size=SIZE,
    )
    first = [0, 1, 2, 3, 4, 5, 8, 9, NEWLINE, 6, 7, 10, 11, NEWLINE]
    second = [12, 13, 14, 15, 16, 17, NEWLINE, 18, 19, NEWLINE, 20, 21, NEWLINE, 22, 23, NEWLINE]
    assert batch.feature_index.tolist() == first + second[:14] + [24, 25, 26, 27, 28, 29]
    assert batch.pixels.shape == (9, 3, SIZE, SIZE)
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    with pytest.raises(DataError, match="one <image> tag"):
        pack([tiled(4, wide, 3, 28)], layout=layout, image_size=SIZE)
