"""Any split of a step consumes its samples once and keeps the ranks in step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.batching.micro import split_step
from densekit.batching.steps import Step
from densekit.errors import UsageError


def _step(sizes: list[int]) -> Step:
    # Sample numbers repeat on purpose: a completed batch holds some samples twice.
    return Step(index=0, groups=[np.arange(size, dtype=np.int64) + number for number, size in enumerate(sizes)])


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    world_size=st.integers(1, 9),
    micro_batch_size=st.integers(1, 7),
)
def test_conservation_and_even_rank_counts(sizes: list[int], world_size: int, micro_batch_size: int) -> None:
    step = _step(sizes)
    ranks = split_step(step, world_size=world_size, micro_batch_size=micro_batch_size)
    assert len(ranks) == world_size
    assert len({len(rank) for rank in ranks}) == 1
    assert all(len(micro) <= micro_batch_size for rank in ranks for micro in rank)
    placed = [(int(sample), number) for number, group in enumerate(step.groups) for sample in group]
    assert [pair for rank in ranks for micro in rank for pair in micro] == placed
    shares = [sum(map(len, rank)) for rank in ranks]
    assert max(shares) - min(shares) <= 1
    # No idle round for everybody: the last micro-batch holds something on the fullest rank.
    assert ranks[0][-1]


def test_idle_ranks_get_an_empty_micro_batch() -> None:
    assert split_step(_step([2]), world_size=3, micro_batch_size=4) == [[[(0, 0)]], [[(1, 0)]], [[]]]


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        split_step(_step([1]), world_size=sizes[0], micro_batch_size=sizes[1])
