"""How many optimiser steps the official trainer takes, and which samples each of them consumes.

Official counting (docs/upstream.md, U9, for the tail; transformers 4.36 with accelerate 0.21 for
accumulation): the data loader has ceil(n / (per-device batch x world size)) rounds per epoch, an epoch counts
as max(rounds // accumulation, 1) updates, and training stops at ceil(epochs x updates) or at max_steps.

* The last round of several processes is completed from the start of the same epoch's order; with one process
  it is short.
* Accumulation counts rounds across epochs: the rounds an epoch leaves over are not thrown away, they open the
  next epoch's first step. Because the step total was fixed from whole updates, what is left at the end is
  never consumed.
* An epoch of at most `accumulation` rounds ends with an update, however few rounds that update holds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from densekit.batching.order import OfficialOrder, ReferenceTopology
from densekit.batching.rng import Indices
from densekit.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step: `groups` are the reference device batches (sample indices), in official order.

    The groups run round by round, and rank by rank inside a round.
    """

    index: int
    groups: list[Indices]


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What a run consumes.

    `rounds_per_epoch` is the official len(dataloader), `steps` the optimiser steps of the whole run.
    `samples_repeated` were added to complete a last round. `samples_dropped` belong to the whole epochs asked
    for and reach no step; with max_steps no epoch is asked for, so it is 0.
    """

    rounds_per_epoch: int
    updates_per_epoch: int
    steps: int
    samples_dropped: int
    samples_repeated: int


def count_steps(
    num_samples: int,
    *,
    topology: ReferenceTopology,
    epochs: float | None = None,
    max_steps: int | None = None,
) -> StepCounts:
    """Count steps as the official trainer does, for `epochs` passes (may be fractional) or exactly
    `max_steps`.

    Raises UsageError unless exactly one of the two is given and positive, DataError without samples.
    """
    if num_samples < 1:
        raise DataError(f"{num_samples} samples: there is nothing to train on; check the annotation file")
    if (epochs is None) == (max_steps is None):
        raise UsageError(f"epochs={epochs}, max_steps={max_steps}: give exactly one of the two")
    round_size = topology.world_size * topology.per_device_batch_size
    rounds = math.ceil(num_samples / round_size)
    updates = max(rounds // topology.grad_accum_steps, 1)
    steps = max_steps if max_steps is not None else math.ceil((epochs or 0) * updates)
    if steps < 1:
        raise UsageError(f"epochs={epochs}, max_steps={max_steps}: that is no step at all; give a positive number")

    used = [number for step in _schedule(rounds, topology.grad_accum_steps, steps) for _, number in step]
    fresh = sum(min(round_size, num_samples - number * round_size) for number in used)
    repeated = len(used) * round_size - fresh if topology.world_size > 1 else 0
    return StepCounts(
        rounds_per_epoch=rounds,
        updates_per_epoch=updates,
        steps=steps,
        samples_dropped=max(math.floor(epochs or 0) * num_samples - fresh, 0),
        samples_repeated=repeated,
    )


def iterate_steps(order: OfficialOrder, *, epochs: float | None = None, max_steps: int | None = None) -> Iterator[Step]:
    """Yield every optimiser step of the run with its samples; arguments and errors as `count_steps`."""
    topology = order.topology
    counts = count_steps(order.num_samples, topology=topology, epochs=epochs, max_steps=max_steps)
    schedule = _schedule(counts.rounds_per_epoch, topology.grad_accum_steps, counts.steps)
    for index, rounds in enumerate(schedule):
        groups: list[Indices] = []
        for epoch, number in rounds:
            groups.extend(_round_groups(order.epoch(epoch), number, topology))
        yield Step(index=index, groups=groups)


def _schedule(rounds: int, accumulation: int, steps: int) -> Iterator[list[tuple[int, int]]]:
    """Yield, per optimiser step, its (epoch, round of that epoch) pairs."""
    pending: list[tuple[int, int]] = []
    done = 0
    seen = 0
    for epoch in count():
        for number in range(rounds):
            pending.append((epoch, number))
            seen += 1
            closes_short_epoch = rounds <= accumulation and number == rounds - 1
            if seen % accumulation == 0 or closes_short_epoch:
                yield pending
                pending = []
                done += 1
                if done == steps:
                    return


def _round_groups(order: Indices, number: int, topology: ReferenceTopology) -> list[Indices]:
    """Return the device batches of one round, one per reference rank."""
    size = topology.per_device_batch_size
    start = number * topology.world_size * size
    if topology.world_size == 1:
        return [order[start : start + size]]
    # take(mode="wrap") is the completion: positions past the end go on from the start of the order.
    return [
        order.take(range(first, first + size), mode="wrap")
        for first in range(start, start + topology.world_size * size, size)
    ]
