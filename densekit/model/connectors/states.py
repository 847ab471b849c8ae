"""Picking hidden states out of a tower that computes them one after the other."""

from collections.abc import Iterable, Set

from torch import Tensor


def kept(hidden_states: Iterable[Tensor], indices: Set[int]) -> dict[int, Tensor]:
    """The states of these indices, by index; every other one is let go at once."""
    return {index: state for index, state in enumerate(hidden_states) if index in indices}
