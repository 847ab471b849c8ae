"""Sharing the samples of one optimiser step out over real ranks and micro-batches."""

from densekit.batching.steps import Step
from densekit.errors import UsageError

# (sample index, number of its reference group in the step)
Placed = tuple[int, int]
MicroBatch = list[Placed]


def split_step(step: Step, *, world_size: int, micro_batch_size: int) -> list[list[MicroBatch]]:
    """Return, per rank, its micro-batches: every sample of the step once, at most `micro_batch_size` each.

    Ranks take consecutive blocks of the official order whose sizes differ by at most one sample. All ranks
    get the same number of micro-batches; an empty one means that the rank feeds an idle dummy. The group
    numbers keep the loss weights independent of the split (docs/architecture.md). Raises UsageError when a
    size is below 1.
    """
    for name, value in (("world_size", world_size), ("micro_batch_size", micro_batch_size)):
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    placed = [(int(sample), number) for number, group in enumerate(step.groups) for sample in group]
    share, extra = divmod(len(placed), world_size)
    largest_share = share + (extra > 0)
    micro_batches = -(-largest_share // micro_batch_size)

    ranks: list[list[MicroBatch]] = []
    start = 0
    for rank in range(world_size):
        mine = placed[start : start + share + (rank < extra)]
        start += len(mine)
        ranks.append([mine[i * micro_batch_size : (i + 1) * micro_batch_size] for i in range(micro_batches)])
    return ranks
