"""SCI, sparse channel integration: shallow layers beside the high-level layer, as channels."""

from collections.abc import Iterable

import torch
from torch import Tensor

from densekit.model.connectors.states import kept
from densekit.spec.connector import Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """[I, P, D] -> [I, P, (1 + n) * D]."""
    states = kept(hidden_states, {high, *connector.layers})
    return torch.cat([states[high], *(states[index] for index in connector.layers)], dim=-1)
