"""No dense connector: the high-level layer alone, as LLaVA has it."""

from collections.abc import Iterable

from torch import Tensor

from densekit.model.connectors.states import kept
from densekit.spec.connector import Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """[I, P, D] -> the same state."""
    return kept(hidden_states, {high})[high]
