"""Collation: where tokens, image features and labels of packed samples come to lie."""

import numpy as np

from densekit.data.pixels import ReadImage
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.text.sequence import ModelSequence
from densekit.train.collate import WeightedSample, pack

SIZE, TOKENS = 8, 3


def sample(
    position: int, ids: list[int], *, image: bool, labels: tuple[int, ...] = ()
) -> WeightedSample:
    """One whose tokens at `labels` have a label."""
    kept = [token if at in labels else IGNORE_INDEX for at, token in enumerate(ids)]
    pixels = np.full((3, SIZE, SIZE), position, dtype=np.uint8)
    return WeightedSample(
        sequence=ModelSequence(np.array(ids), np.array(kept)),
        image=ReadImage(pixels=pixels, digest="00") if image else None,
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
        image_tokens=TOKENS,
        image_size=SIZE,
    )
    assert batch.image_slots.tolist() == [1, 2, 3, 11, 12]
    assert batch.feature_index.tolist() == [0, 1, 2, 6, 7]
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert batch.input_ids.tolist() == [1, 0, 0, 0, 7, 1, 2, 1, 5, 6, 1, 0, 0]
    assert batch.cu_seqlens.tolist() == [0, 5, 7, 10, 13]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 1, 2]


def test_a_label_lies_one_position_ahead_and_never_in_the_next_sequence() -> None:
    batch = pack(
        [
            sample(4, [1, 8, 9], image=False, labels=(1, 2)),
            sample(5, [3, 7], image=False, labels=(0, 1)),  # the first token has no predecessor
        ],
        image_tokens=TOKENS,
        image_size=SIZE,
    )
    assert batch.label_positions.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [8, 9, 7]
    assert batch.weights.tolist() == [4.5, 4.5, 5.5]
    assert (batch.positions, batch.sample_ids) == ((4, 5), ("4:00", "5:00"))


def test_a_rank_without_samples_gets_one_token_without_a_label() -> None:
    batch = pack([], image_tokens=TOKENS, image_size=SIZE)
    assert batch.input_ids.tolist() == [0] and batch.cu_seqlens.tolist() == [0, 1]
    assert batch.pixels.shape == (0, 3, SIZE, SIZE)
    assert not len(batch.label_positions) and not batch.sample_ids
