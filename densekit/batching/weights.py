"""What one label position weighs in the loss of a step, in both semantics (docs/semantics.md)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from densekit.errors import UsageError
from densekit.spec.types import Semantics


@dataclass(frozen=True, kw_only=True)
class TokenWeights:
    """Weights of one step.

    `per_sample`, float64 of shape (samples,), is the weight of *each* label position of that
    sample: the loss is the sum over tokens of weight x cross-entropy (nats). `label_positions` is
    the step's total; 0 means that the step teaches nothing. `empty_groups` are the numbers of the
    reference groups without a label position, to be reported: the official code gives NaN there.
    """

    per_sample: npt.NDArray[np.float64]
    label_positions: int
    empty_groups: tuple[int, ...]


def token_weights(
    label_counts: Sequence[int] | npt.NDArray[np.int64],
    group_numbers: Sequence[int] | npt.NDArray[np.int64],
    *,
    num_groups: int,
    semantics: Semantics,
) -> TokenWeights:
    """Return the weight of a label position for every sample of one optimizer step.

    `label_counts` (samples,): labels left after shifting by one and truncation.
    `group_numbers` (samples,): the sample's reference group, 0 .. num_groups - 1. `num_groups` is
    G, a step's `num_groups`.

    faithful: 1 / (G x n_g), and 0 in a group with n_g = 0, which still counts in G. fixed: 1 /
    n_global, 0 if there is no label position at all. Raises UsageError for arguments that do not
    fit together.
    """
    counts = np.asarray(label_counts, dtype=np.int64)
    groups = np.asarray(group_numbers, dtype=np.int64)
    if counts.ndim != 1 or counts.shape != groups.shape:
        raise UsageError(
            f"token_weights got {counts.shape} counts and {groups.shape} group numbers; give one "
            "of each per sample"
        )
    if (counts < 0).any() or (groups < 0).any() or (groups >= num_groups).any():
        raise UsageError(
            "token_weights: counts must not be negative and group numbers must lie in 0 .. "
            f"{num_groups - 1}"
        )
    per_group = np.zeros(num_groups, dtype=np.int64)
    np.add.at(per_group, groups, counts)
    total = int(per_group.sum())
    if semantics == "faithful":
        group_weights = _reciprocal(num_groups * per_group)
    elif semantics == "fixed":
        group_weights = _reciprocal(np.full(num_groups, total, dtype=np.int64))
    else:
        raise UsageError(f"semantics {semantics!r}: write 'faithful' or 'fixed'")
    return TokenWeights(
        per_sample=group_weights[groups],
        label_positions=total,
        empty_groups=tuple(
            number for number in np.unique(groups).tolist() if per_group[number] == 0
        ),
    )


def _reciprocal(divisors: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return 1 / divisors, with 0 where the divisor is 0."""
    weights = np.zeros(divisors.shape, dtype=np.float64)
    np.divide(1.0, divisors, out=weights, where=divisors > 0)
    return weights
