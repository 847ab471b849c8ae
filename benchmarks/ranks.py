"""What one rank's host does in a step, in worlds of 8 to 512 ranks, without any GPU or other rank.

Rank 0 of torch's fake process group (its collectives return at once) reads steps of made
conversations as training does, tokens by a word each, no pixels, and gathers the feed. CPU
milliseconds of one thread per step, median of --steps: reading with nothing counted before, reading
with the counts there, and gathering; and the collectives of the feed, by name. The global batch is
1024 at 512 ranks, as a made recipe has it, and also below.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from text_only import Words, text_reader
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from densekit.batching.steps import Step
from densekit.data.annotations import Annotations
from densekit.data.token_counts import TokenCounts
from densekit.train import feed_check
from densekit.train.feed_check import gather_feed
from densekit.train.step_dataset import StepBatch, StepDataset

WORLDS = (8, 32, 128, 512)
GROUP = 2
"""Samples of a reference group."""


def made(folder: Path, samples: int) -> Annotations:
    """Conversations of some 300 words."""
    draw = np.random.default_rng(0)
    entries = [
        {
            "conversations": [
                {"from": "human", "value": "why so " * int(draw.integers(5, 40))},
                {"from": "gpt", "value": "because it is " * int(draw.integers(30, 120))},
            ]
        }
        for _ in range(samples)
    ]
    path = folder / "made.json"
    path.write_text(json.dumps(entries))
    return Annotations.load(path, cache=folder)


def timed(work: Callable[[int], Any], steps: int) -> float:
    """CPU milliseconds of `work(step)`, the median."""
    seconds = []
    for step in range(steps):
        begun = time.process_time()
        work(step)
        seconds.append(time.process_time() - begun)
    return round(1000 * statistics.median(seconds), 2)


def measure(annotations: Annotations, world: int, batch: int, steps: int) -> dict[str, Any]:
    """One rank of a world."""
    order = np.arange(steps * batch).reshape(steps, batch // GROUP, GROUP)
    plan = [
        Step(index=number, groups=list(groups), num_groups=batch // GROUP)
        for number, groups in enumerate(order)
    ]
    counts = TokenCounts(Path("none"), np.zeros(len(annotations), dtype=np.uint64))
    dataset = StepDataset(
        text_reader(annotations, Words(), counts),
        plan,
        loss_semantics="faithful",
        rank=0,
        world_size=world,
        micro_batch_size=16,
    )
    first = timed(lambda step: dataset[step], steps)
    again = timed(lambda step: dataset[step], steps)
    batches = [dataset[step] for step in range(steps)]
    everyone = _everyone(dataset, world)
    calls: Counter[str] = Counter()

    def all_gather(into: list[torch.Tensor], mine: torch.Tensor) -> None:
        calls["all_gather"] += 1
        distributed.all_gather(into, mine)
        for place, rank in zip(into, everyone, strict=True):
            place.copy_(rank)

    with patch.object(feed_check, "distributed", _Only(all_gather)):

        def gather(step: int) -> None:
            batch_read = batches[0]
            assert isinstance(batch_read, StepBatch)
            gather_feed(
                batch_read.micro_batches,
                flags=0,
                world_size=world,
                device=torch.device("cpu"),
                step_size=batch,
            )

        gathered = timed(gather, steps)
    return {
        "world_size": world,
        "global_batch_size": batch,
        "read_first_ms": first,
        "read_counted_ms": again,
        "gather_ms": gathered,
        "collectives_of_the_feed": {name: number / steps for name, number in calls.items()},
    }


class _Only:
    """torch.distributed with one function of ours."""

    def __init__(self, all_gather: Callable[..., None]) -> None:
        self.all_gather = all_gather


def _everyone(dataset: StepDataset, world: int) -> list[torch.Tensor]:
    """What each rank would send for step 0: the fake group hands nothing on."""
    sent: list[torch.Tensor] = []

    def keep(into: list[torch.Tensor], mine: torch.Tensor) -> None:
        sent.append(mine.clone())
        raise StopIteration

    with patch.object(feed_check, "distributed", _Only(keep)):
        for rank in range(world):
            dataset.rank = rank
            batch = dataset[0]
            assert isinstance(batch, StepBatch), batch
            with suppress(StopIteration):
                gather_feed(
                    batch.micro_batches,
                    flags=0,
                    world_size=world,
                    device=torch.device("cpu"),
                    step_size=batch.samples,
                )
    dataset.rank = 0
    return sent


def main() -> None:
    """Print a line of figures per world as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1024)
    given = parser.parse_args()
    if given.steps < 1 or given.batch < GROUP or given.batch % GROUP:
        parser.error(f"--steps is at least 1, --batch a multiple of {GROUP}")
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        annotations = made(Path(folder), given.steps * given.batch)
        for world in WORLDS:
            distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
            found.append(measure(annotations, world, given.batch, given.steps))
            distributed.destroy_process_group()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
