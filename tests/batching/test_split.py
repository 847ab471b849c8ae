"""Any split of a step consumes its samples once, keeps ranks in step and balances tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.batching.order import OfficialOrder
from densekit.batching.split import split_step
from densekit.batching.steps import iterate_steps
from densekit.errors import UsageError
from densekit.spec.math import Reference

LENGTHS = st.lists(st.integers(1, 2048), min_size=1, max_size=60)


def _totals(parts: list[list[int]], lengths: list[int]) -> list[int]:
    return [sum(lengths[position] for position in part) for part in parts]


def _flat(rank: list[list[int]]) -> list[int]:
    return [position for micro in rank for position in micro]


def _consecutive(samples: int, world_size: int) -> list[list[int]]:
    """Blocks of the official order, whatever the lengths."""
    return [block.tolist() for block in np.array_split(np.arange(samples), world_size)]


@given(lengths=LENGTHS, world_size=st.integers(1, 9), micro_batch_size=st.integers(1, 20))
def test_every_position_once_and_counts_that_lengths_do_not_change(
    lengths: list[int], world_size: int, micro_batch_size: int
) -> None:
    ranks = split_step(lengths, world_size=world_size, micro_batch_size=micro_batch_size)
    assert sorted(position for rank in ranks for position in _flat(rank)) == list(
        range(len(lengths))
    )
    assert all(micro == sorted(micro) for rank in ranks for micro in rank)
    counts = [[len(micro) for micro in rank] for rank in ranks]
    equal = split_step([1] * len(lengths), world_size=world_size, micro_batch_size=micro_batch_size)
    assert counts == [[len(micro) for micro in rank] for rank in equal]
    shares = [sum(rank) for rank in counts]
    assert len(shares) == world_size
    assert {len(rank) for rank in counts} == {-(-shares[0] // micro_batch_size)}
    for even in (shares, *counts):
        assert max(even) - min(even) <= 1 and even == sorted(even, reverse=True)
    assert max(map(max, counts)) <= micro_batch_size


@given(
    lengths=LENGTHS,
    world_size=st.integers(1, 9),
    micro_batch_size=st.integers(1, 20),
    tokens=st.integers(2048, 20_000),
)
def test_micro_batches_cut_by_tokens_hold_no_more(
    lengths: list[int], world_size: int, micro_batch_size: int, tokens: int
) -> None:
    ranks = split_step(
        lengths,
        world_size=world_size,
        micro_batch_size=micro_batch_size,
        tokens_per_micro_batch=tokens,
    )
    by_count = split_step(lengths, world_size=world_size, micro_batch_size=micro_batch_size)
    assert [sorted(_flat(rank)) for rank in ranks] == [sorted(_flat(rank)) for rank in by_count]
    assert all(micro == sorted(micro) for rank in ranks for micro in rank)
    assert max(max(_totals(rank, lengths)) for rank in ranks) <= tokens
    assert max(len(micro) for rank in ranks for micro in rank) <= micro_batch_size
    (number,) = {len(rank) for rank in ranks}
    # As many samples as fit whatever their lengths need no more micro-batches.
    bound = split_step(
        lengths, world_size=world_size, micro_batch_size=min(micro_batch_size, tokens // 2048)
    )
    assert len(by_count[0]) <= number <= len(bound[0])


def test_fewer_micro_batches_where_samples_are_shorter_than_they_may_be() -> None:
    """The figures of stage 2 on 8 GPUs of 80 GB: 16 samples a rank, of 786 tokens on average."""
    lengths = np.random.default_rng(0).integers(600, 1000, 128).tolist()
    by_count = split_step(lengths, world_size=8, micro_batch_size=4)
    by_tokens = split_step(
        lengths, world_size=8, micro_batch_size=16, tokens_per_micro_batch=4 * 2048
    )
    assert {len(rank) for rank in by_count} == {4} and {len(rank) for rank in by_tokens} == {2}


def test_a_sample_that_no_micro_batch_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"tokens_per_micro_batch is 5, and a sample has 6 tok"):
        split_step([5, 6], world_size=1, micro_batch_size=2, tokens_per_micro_batch=5)


@given(lengths=LENGTHS, world_size=st.integers(1, 9), micro_batch_size=st.integers(1, 20))
def test_no_rank_and_no_micro_batch_is_ahead_by_more_than_its_last_sample(
    lengths: list[int], world_size: int, micro_batch_size: int
) -> None:
    # What greedy dealing promises between two parts of equal size; without it a split may be
    # arbitrarily bad.
    ranks = split_step(lengths, world_size=world_size, micro_batch_size=micro_batch_size)
    for parts in ([_flat(rank) for rank in ranks], *ranks):
        totals = _totals(parts, lengths)
        for number, part in enumerate(parts):
            for other, theirs in enumerate(parts):
                if len(part) == len(theirs) and part:
                    assert totals[number] - totals[other] <= max(
                        lengths[position] for position in part
                    )


def _steps(*, grouped: bool, batch: int) -> list[list[int]]:
    """Tokens per sample of 16 to 32 official steps: 576 for an image, words with a long tail, cut
    at 2048.
    """
    rng = np.random.default_rng(0)
    words = rng.lognormal(4.6, 0.9, 4096).astype(np.int64) + 1
    text_only = rng.random(4096) < 0.06
    tokens = np.minimum(np.where(text_only, 40, 616) + words * 4 // 3, 2048)
    order = OfficialOrder(
        modality_lengths=np.where(text_only, -words, words),
        topology=Reference(gpus=8, per_device_batch_size=batch, grad_accum_steps=1),
        seed=42,
        group_by_modality=grouped,
    )
    return [tokens[np.concatenate(step.groups)].tolist() for step in iterate_steps(order, epochs=1)]


@pytest.mark.parametrize(
    ("grouped", "batch", "world_size", "balanced", "consecutive"),
    [
        (False, 32, 8, 1.01, 1.07),
        (False, 32, 16, 1.03, 1.13),
        (True, 16, 16, 1.08, 1.19),
        (True, 16, 6, 1.04, 1.09),
    ],
)
def test_ranks_are_clearly_better_balanced_than_consecutive_blocks(
    grouped: bool, batch: int, world_size: int, balanced: float, consecutive: float
) -> None:
    """Largest over mean total of a rank, as a mean over steps: the share of time in which the
    others wait.
    """
    ours, blocks = [], []
    for lengths in _steps(grouped=grouped, batch=batch):
        mean = sum(lengths) / world_size
        ranks = split_step(lengths, world_size=world_size, micro_batch_size=4)
        ours.append(max(_totals([_flat(rank) for rank in ranks], lengths)) / mean)
        blocks.append(max(_totals(_consecutive(len(lengths), world_size), lengths)) / mean)
        assert grouped or ours[-1] <= blocks[-1]
    assert np.mean(ours) < balanced < consecutive < np.mean(blocks)


def test_micro_batches_are_better_balanced_than_consecutive_ones() -> None:
    """All ranks finish a micro-batch before the next one begins: what counts is the longest of each
    round.
    """
    ours, blocks = 0, 0
    for lengths in _steps(grouped=False, batch=32):
        ranks = [
            _totals(rank, lengths) for rank in split_step(lengths, world_size=8, micro_batch_size=4)
        ]
        ours += sum(max(round_totals) for round_totals in zip(*ranks, strict=True))
        cut = [np.array_split(block, 8) for block in np.array_split(np.array(lengths), 8)]
        blocks += sum(
            max(int(micro.sum()) for micro in micros) for micros in zip(*cut, strict=True)
        )
    assert ours < 0.9 * blocks


def test_a_split_by_hand() -> None:
    # 9 and 8 open the ranks, 5 joins 8 and fills rank 1, so 3 and 2 join 9. There 3 opens the
    # second micro-batch, which has room for one sample only, so 2 joins 9 again.
    assert split_step([3, 9, 5, 8, 2], world_size=2, micro_batch_size=2) == [
        [[1, 4], [0]],
        [[3], [2]],
    ]


def test_what_all_samples_have_in_common_does_not_count() -> None:
    # Above 100: 5 opens the first part, 2, 1 and 1 fill the second, and 1 and 0 are left.
    assert split_step([101, 105, 100, 101, 102, 101], world_size=1, micro_batch_size=4) == [
        [[1, 2, 5], [0, 3, 4]]
    ]


@pytest.mark.parametrize(
    ("lengths", "samples", "tokens", "expected"),
    [
        ([5, 5, 2], 3, 5, [[0], [1], [2]]),  # each is as full as it may be
        ([2, 3, 1], 3, 6, [[0, 1, 2]]),
        ([2, 3, 1], 2, 6, [[1], [0, 2]]),  # no more samples than that
        ([9, 1, 1, 1], 2, 9, [[0], [1, 3], [2]]),
        ([3, 3], 2, 5, [[0], [1]]),  # one token too many
        ([3, 4, 2], 3, 6, [[1], [0, 2]]),  # the longest first, then where the fewest tokens are
        ([], 2, 5, []),
    ],
)
def test_a_split_by_tokens_by_hand(
    lengths: list[int], samples: int, tokens: int, expected: list[list[int]]
) -> None:
    assert split_step(
        lengths, world_size=1, micro_batch_size=samples, tokens_per_micro_batch=tokens
    ) == [expected]


def test_every_rank_has_as_many_micro_batches_as_the_one_that_needs_most() -> None:
    assert split_step([4, 4, 4], world_size=2, micro_batch_size=2, tokens_per_micro_batch=4) == [
        [[0], [2]],
        [[1], []],
    ]


def test_equal_lengths_are_dealt_in_turn() -> None:
    assert split_step([7] * 6, world_size=2, micro_batch_size=2) == [[[0, 4], [2]], [[1, 5], [3]]]


def test_idle_ranks_get_an_empty_micro_batch() -> None:
    assert split_step([5, 6], world_size=3, micro_batch_size=4) == [[[1]], [[0]], [[]]]
    assert split_step([5, 6, 7], world_size=2, micro_batch_size=1) == [[[2], [0]], [[1], []]]


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        split_step([1], world_size=sizes[0], micro_batch_size=sizes[1])
