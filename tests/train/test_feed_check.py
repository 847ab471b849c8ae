"""What the ranks fed: ids and image digests come back in official order, and doubles and gaps are
bugs.
"""

from dataclasses import replace

import pytest
import torch

from densekit.model.micro_batch import MicroBatch
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout
from densekit.train.collate import pack
from densekit.train.feed_check import SAVE, STOP, Feed, gather_feed

EMPTY = pack([], layout=ImageLayout(patches=4, connector=Connector(kind="none")), image_size=8)


def fed(*entries: tuple[int, str, str | None]) -> MicroBatch:
    positions, sample_ids, images = zip(*entries, strict=True)
    return replace(EMPTY, positions=positions, sample_ids=sample_ids, image_digests=images)


def gather(*micro_batches: MicroBatch, step_size: int, flags: int = 0) -> Feed:
    return gather_feed(
        micro_batches, flags=flags, world_size=1, device=torch.device("cpu"), step_size=step_size
    )


def test_ids_and_images_come_back_in_official_order() -> None:
    high, low = "f" * 16, "0" * 15 + "1"
    feed = gather(
        fed((2, f"665297:{high}", None), (0, f"7:{low}", high)),
        EMPTY,
        fed((1, f"7:{low}", low)),
        step_size=3,
    )
    assert feed.samples == [f"7:{low}", f"7:{low}", f"665297:{high}"]
    assert feed.images == [high, low, None]
    assert feed.flags == 0


def test_flags_travel_with_them() -> None:
    assert gather(fed((0, "0:00", None)), step_size=1, flags=STOP | SAVE).flags == STOP | SAVE


@pytest.mark.parametrize("positions", [(0, 0), (0, 2), (1, 2)])
def test_doubles_and_gaps(positions: tuple[int, int]) -> None:
    twice = [fed((position, f"{position}:00", None)) for position in positions]
    with pytest.raises(
        RuntimeError, match=r"the ranks fed positions \[.*\] of a step of 2 samples"
    ):
        gather(*twice, step_size=2)


def test_more_samples_than_a_rank_can_have() -> None:
    with pytest.raises(RuntimeError, match="a rank feeds 2 samples of a step of 1"):
        gather(fed((0, "0:00", None), (1, "1:00", None)), step_size=1)
