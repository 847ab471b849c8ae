"""Frames of a video as tokens: their order, their pooling, and which image is a frame of what."""

import pytest
import torch

from densekit.model.frames import TaggedFrames, joined_frames, of_tags


def test_neighbours_in_the_sequence_are_pooled_and_frames_follow_in_time() -> None:
    tokens = torch.arange(2 * 5).reshape(2, 5, 1).float()
    pooled = joined_frames(tokens.unbind(), pooled=True)
    assert pooled.flatten().tolist() == [1, 3, 6, 8]  # the last one of five is dropped
    plain = joined_frames(tokens.unbind(), pooled=False)
    assert plain.flatten().tolist() == [*range(10)]


def test_channels_are_pooled_by_themselves() -> None:
    frame = torch.tensor([[1.0, 9.0], [5.0, 2.0]])
    assert joined_frames([frame], pooled=True).tolist() == [[5, 9]]


def test_images_and_videos_of_one_batch() -> None:
    images = [torch.full((4, 1), float(number)) for number in range(4)]
    found = of_tags(images, TaggedFrames(counts=[0, 3], pooled=True))
    assert [each.flatten().tolist() for each in found] == [[0] * 4, [1, 1, 2, 2, 3, 3]]
    with pytest.raises(ValueError, match="4 images given, the tags and their videos have 5"):
        of_tags(images, TaggedFrames(counts=[0, 4], pooled=True))
