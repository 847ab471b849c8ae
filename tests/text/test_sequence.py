"""Tests of the expanded model sequence and of the grouping length."""

import numpy as np
import pytest

from densekit.errors import DataError
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.text.encode import EncodedSample
from densekit.text.lengths import modality_length
from densekit.text.sequence import ModelSequence, model_sequence
from tests.support.conversations import chat


def sample(ids: list[int]) -> EncodedSample:
    labels = [i if i in (7, 8, 0, IMAGE_TOKEN_ID) else IGNORE_INDEX for i in ids]
    return EncodedSample(np.array(ids), np.array(labels), ())


def test_images_expand_and_never_have_labels() -> None:
    row = model_sequence(
        sample([1, IMAGE_TOKEN_ID, 5, IMAGE_TOKEN_ID, 7]),
        pad_id=0,
        image_tokens=3,
        max_length=20,
        semantics="fixed",
    )
    image = [IMAGE_TOKEN_ID] * 3
    assert row.input_ids.tolist() == [1, *image, 5, *image, 7]
    assert row.labels.tolist() == [IGNORE_INDEX] * 8 + [7]


def test_pad_ids_leave_the_faithful_sequence_only() -> None:
    kept = {"faithful": [1, 5, 7], "fixed": [1, 5, 0, 7]}
    for semantics, ids in kept.items():
        row = model_sequence(
            sample([1, 5, 0, 7]),
            pad_id=0,
            image_tokens=3,
            max_length=20,
            semantics=semantics,  # type: ignore[arg-type]
        )
        assert row.input_ids.tolist() == ids
        assert row.labels.tolist() == [IGNORE_INDEX, IGNORE_INDEX, *ids[2:]]


def test_label_positions_are_counted_behind_the_first_token() -> None:
    labels = np.array([7, 8, IGNORE_INDEX, 9])
    assert ModelSequence(np.array([7, 8, 1, 9]), labels).label_count == 2


def test_both_cuts() -> None:
    first = model_sequence(
        sample([0, 1, 5, 7, 8]), pad_id=0, image_tokens=3, max_length=4, semantics="faithful"
    )
    assert first.input_ids.tolist() == [1, 5, 7]
    second = model_sequence(
        sample([1, IMAGE_TOKEN_ID, 7, 8]),
        pad_id=0,
        image_tokens=4,
        max_length=4,
        semantics="faithful",
    )
    assert second.input_ids.tolist() == [1, *[IMAGE_TOKEN_ID] * 3]
    assert len(second.labels) == 4


def test_modality_length_counts_words() -> None:
    turns = chat("<image>\nWhat  is it?", "A cat.")
    assert modality_length(turns, True) == 6
    assert modality_length(turns, False) == -6


@pytest.mark.parametrize("turns", [chat(" ", ""), [], [{"from": "human"}]])
def test_modality_length_refuses_a_conversation_without_words(turns: list[dict[str, str]]) -> None:
    with pytest.raises(DataError):
        modality_length(turns, True)
