"""Sharing the samples of one optimizer step out over real ranks and micro-batches, balanced by
length.
"""

import heapq
from collections.abc import Sequence
from itertools import count

from densekit.errors import UsageError


def split_step(
    lengths: Sequence[int],
    *,
    world_size: int,
    micro_batch_size: int,
    tokens_per_micro_batch: int | None = None,
) -> list[list[list[int]]]:
    """Return `result[rank][micro-batch]` = sorted positions in `lengths`: every position once.

    `lengths[p]` is the number of tokens of the sample at position p of the step (official order,
    groups one after the other). How many samples go where depends on their number alone: ranks
    differ by at most one sample (the first ones have more); every rank has ceil(largest share /
    micro_batch_size) micro-batches, which differ by at most one sample (again the first ones have
    more). An empty micro-batch means that the rank feeds an idle dummy. Which samples: the longest
    first, each to the rank, then the micro-batch, that is behind and has room.

    With `tokens_per_micro_batch` micro-batches are cut by their tokens instead: none holds more,
    nor more than micro_batch_size samples, and every rank has as many as the one that needs most.
    Raises UsageError when a size is below 1, or a sample alone has more tokens.
    """
    for name, value in (
        ("world_size", world_size),
        ("micro_batch_size", micro_batch_size),
        ("tokens_per_micro_batch", tokens_per_micro_batch),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    shares = _even_shares(len(lengths), world_size)
    micro_batches = -(-shares[0] // micro_batch_size)
    if tokens_per_micro_batch is not None:
        if max(lengths, default=0) > tokens_per_micro_batch:
            raise UsageError(
                f"tokens_per_micro_batch is {tokens_per_micro_batch}, and a sample has "
                f"{max(lengths)} tokens: give at least data.max_length"
            )
        ranks = _deal(range(len(lengths)), lengths, shares)
        for number in count(micro_batches):
            packed = [
                _packed(rank, lengths, number, micro_batch_size, tokens_per_micro_batch)
                for rank in ranks
            ]
            if all(rank is not None for rank in packed):
                return [rank for rank in packed if rank is not None]
    return [
        _deal(rank, lengths, _even_shares(len(rank), micro_batches)) if micro_batches else []
        for rank in _deal(range(len(lengths)), lengths, shares)
    ]


def _even_shares(items: int, parts: int) -> list[int]:
    """Split a number into `parts` that differ by at most 1, larger ones first."""
    share, extra = divmod(items, parts)
    return [share + (part < extra) for part in range(parts)]


def _packed(
    positions: Sequence[int], lengths: Sequence[int], number: int, samples: int, tokens: int
) -> list[list[int]] | None:
    """Put the longest first into the part with the fewest tokens that has room; None where one
    fits nowhere.
    """
    parts: list[list[int]] = [[] for _ in range(number)]
    behind = [(0, part) for part in range(number)]
    for position in sorted(positions, key=lambda position: -lengths[position]):
        if not behind or behind[0][0] + lengths[position] > tokens:
            return None
        total, part = behind[0]
        parts[part].append(position)
        if len(parts[part]) < samples:
            heapq.heapreplace(behind, (total + lengths[position], part))
        else:
            heapq.heappop(behind)
    return [sorted(part) for part in parts]


def _deal(positions: Sequence[int], lengths: Sequence[int], room: Sequence[int]) -> list[list[int]]:
    """Deal the longest first to the part with the smallest total that has room; ties go to the
    lowest number.

    The total counts what lies above the shortest sample. How many samples a part gets is settled,
    so what all of them have in common (an image's hundreds of tokens) decides nothing, and would
    only hide who is behind.
    """
    shortest = min((lengths[position] for position in positions), default=0)
    parts: list[list[int]] = [[] for _ in room]
    # (total, samples, number): a heap, as all are equal; of equal totals the one with fewer samples
    # comes first.
    behind = [(0, 0, number) for number, places in enumerate(room) if places]
    for position in sorted(positions, key=lambda position: -lengths[position]):
        total, samples, number = behind[0]
        parts[number].append(position)
        if samples + 1 < room[number]:
            heapq.heapreplace(behind, (total + lengths[position] - shortest, samples + 1, number))
        else:
            heapq.heappop(behind)
    return [sorted(part) for part in parts]
