"""Token weights in both semantics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densekit.batching.weights import token_weights
from densekit.errors import UsageError
from densekit.spec.types import Semantics

SAMPLES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=30)


@given(samples=SAMPLES)
def test_faithful_weights_sum_to_the_share_of_groups_that_teach(
    samples: list[tuple[int, int]],
) -> None:
    counts, groups = (np.array(column) for column in zip(*samples, strict=True))
    weights = token_weights(counts, groups, num_groups=4, semantics="faithful")
    teaching = set(groups[counts > 0].tolist())
    assert (counts * weights.per_sample).sum() == pytest.approx(len(teaching) / 4)
    assert weights.empty_groups == tuple(sorted(set(groups.tolist()) - teaching))
    assert weights.label_positions == counts.sum()


@given(samples=SAMPLES)
def test_fixed_weights_sum_to_one(samples: list[tuple[int, int]]) -> None:
    counts, groups = (np.array(column) for column in zip(*samples, strict=True))
    weights = token_weights(counts, groups, num_groups=4, semantics="fixed")
    assert (counts * weights.per_sample).sum() == pytest.approx(float(counts.sum() > 0))
    assert len(set(weights.per_sample.tolist())) == 1


def test_faithful_is_the_mean_over_groups_of_torchs_mean_cross_entropy() -> None:
    counts, groups = [3, 0, 5, 2], [0, 0, 1, 1]
    losses = [torch.rand(count, dtype=torch.float64) for count in counts]
    official = (torch.cat(losses[:2]).mean() + torch.cat(losses[2:]).mean()) / 2
    weights = token_weights(counts, groups, num_groups=2, semantics="faithful").per_sample
    ours = sum(float(weight * loss.sum()) for weight, loss in zip(weights, losses, strict=True))
    assert ours == pytest.approx(float(official), abs=1e-15)


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_a_label_that_is_alone_in_its_step_has_weight_1(semantics: Semantics) -> None:
    weights = token_weights([1, 0], [0, 0], num_groups=1, semantics=semantics)
    assert weights.per_sample.tolist() == [1.0, 1.0]


def test_a_label_that_is_alone_in_its_group_weighs_as_much_as_the_other_group() -> None:
    weights = token_weights([1, 3], [0, 1], num_groups=2, semantics="faithful").per_sample
    assert weights.tolist() == [1 / 2, 1 / 6]


def test_an_empty_group_stays_in_the_divisor_and_is_reported() -> None:
    weights = token_weights([4, 0, 0], [0, 1, 1], num_groups=2, semantics="faithful")
    assert weights.per_sample.tolist() == [1 / 8, 0.0, 0.0]
    assert weights.empty_groups == (1,)


def test_a_group_that_was_never_filled_counts_but_is_no_empty_group() -> None:
    weights = token_weights([4], [0], num_groups=4, semantics="faithful")
    assert weights.per_sample.tolist() == [1 / 16]
    assert weights.empty_groups == ()


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_a_step_without_supervision_weighs_nothing(semantics: str) -> None:
    weights = token_weights([0, 0], [0, 1], num_groups=2, semantics=semantics)  # type: ignore[arg-type]
    assert weights.per_sample.tolist() == [0.0, 0.0]
    assert (weights.label_positions, weights.empty_groups) == (0, (0, 1))


def test_counts_that_fit_no_group_or_semantics_are_refused() -> None:
    with pytest.raises(UsageError, match="one of each"):
        token_weights([1], [0, 0], num_groups=1, semantics="fixed")
    with pytest.raises(UsageError, match=r"0 \.\. 1"):
        token_weights([1], [2], num_groups=2, semantics="fixed")
    with pytest.raises(UsageError, match="faithful"):
        token_weights([1], [0], num_groups=1, semantics="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "group"), [(-1, 0), (1, -1), (1, 1)])
def test_one_below_or_above_is_refused(count: int, group: int) -> None:
    with pytest.raises(UsageError, match="must lie in 0"):
        token_weights([count], [group], num_groups=1, semantics="fixed")


def test_a_table_of_counts_is_refused() -> None:
    table = np.zeros((1, 2), dtype=np.int64)
    with pytest.raises(UsageError, match=r"\(1, 2\) counts"):
        token_weights(table, table, num_groups=1, semantics="fixed")
