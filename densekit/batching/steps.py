"""Which samples each optimizer step consumes, in which reference groups. The counting is in
counts.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from densekit.batching.counts import count_steps
from densekit.batching.order import OfficialOrder
from densekit.batching.rng import Indices
from densekit.spec.math import Reference
from densekit.spec.types import Semantics


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step."""

    index: int
    groups: list[Indices]
    """The reference device batches (sample indices) in official order: round by round, and rank by
    rank inside a round.
    """
    num_groups: int
    """The G that faithful loss weights divide by. With a faithful tail the topology's groups per
    step, also when a short epoch fills fewer: the official loss divides by the accumulation
    setting, not by the rounds it saw. With a fixed tail the groups there are.
    """

    @property
    def samples(self) -> list[tuple[int, int]]:
        """(sample index, number of its group), in official order."""
        return [
            (sample, number)
            for number, group in enumerate(self.groups)
            for sample in group.tolist()
        ]


def iterate_steps(
    order: OfficialOrder,
    *,
    epochs: float | None = None,
    max_steps: int | None = None,
    tail: Semantics = "faithful",
) -> Iterator[Step]:
    """Yield every optimizer step of the run with its samples; arguments and errors as
    `count_steps`.

    With max_steps the order goes on into as many epochs as the steps need.
    """
    topology = order.topology
    counts = count_steps(
        order.num_samples, topology=topology, epochs=epochs, max_steps=max_steps, tail=tail
    )
    if tail == "fixed":
        for index in range(counts.steps):
            epoch, number = divmod(index, counts.updates_per_epoch)
            groups = _pieces(order.epoch(epoch), number, topology)
            yield Step(index=index, groups=groups, num_groups=len(groups))
        return
    schedule = _schedule(counts.rounds_per_epoch, topology.grad_accum_steps, counts.steps)
    for index, rounds in enumerate(schedule):
        groups = []
        for epoch, number in rounds:
            groups.extend(_round_groups(order.epoch(epoch), number, topology))
        yield Step(index=index, groups=groups, num_groups=topology.groups_per_step)


def _pieces(order: Indices, number: int, topology: Reference) -> list[Indices]:
    """Return step `number` of an epoch in device batches; the epoch's last step has fewer, its last
    batch may be short.
    """
    size = topology.per_device_batch_size
    start = number * topology.global_batch_size
    samples = order[start : start + topology.global_batch_size]
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def _schedule(rounds: int, accumulation: int, steps: int) -> Iterator[list[tuple[int, int]]]:
    """Yield, per official optimizer step, its (epoch, round of that epoch) pairs."""
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


def _round_groups(order: Indices, number: int, topology: Reference) -> list[Indices]:
    """Return the device batches of one official round, one per reference rank."""
    size = topology.per_device_batch_size
    start = number * topology.gpus * size
    if topology.gpus == 1:
        return [order[start : start + size]]
    # take(mode="wrap") is the completion: positions past the end go on from the start of the order.
    return [
        order.take(range(first, first + size), mode="wrap")
        for first in range(start, start + topology.gpus * size, size)
    ]
