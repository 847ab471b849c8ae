"""STI, sparse token integration: pooled tokens of shallow layers behind the high-level layer's."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.model.connectors.states import kept
from densekit.spec.connector import POOL_SIZE, Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """[I, P, D] -> [I, P + n * (P // 8), D]; tokens that do not fill a pool are dropped, as
    officially.
    """
    states = kept(hidden_states, {high, *connector.layers})
    pooled = [_pool(states[index]) for index in connector.layers]
    return torch.cat([states[high], *pooled], dim=1)


def _pool(state: Tensor) -> Tensor:
    return F.avg_pool1d(state.transpose(1, 2), POOL_SIZE, POOL_SIZE).transpose(1, 2)
