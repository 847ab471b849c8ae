"""DCI, dense channel integration: the mean of every group of layers beside the high-level layer."""

from collections.abc import Iterable

import torch
from torch import Tensor

from densekit.spec.connector import Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """[I, P, D] -> [I, P, (1 + groups) * D]; a group is a running sum in fp32, never a list of
    states.
    """
    top: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(connector.groups)
    for index, state in enumerate(hidden_states):
        if index == high:
            top = state
        for number, group in enumerate(connector.groups):
            if index in group:
                running = sums[number]
                sums[number] = state.float() if running is None else running + state
    assert top is not None, "the tower ended before its high-level layer"
    means = []
    for total, group in zip(sums, connector.groups, strict=True):
        assert total is not None, "the tower ended before a group was complete"
        means.append((total / len(group)).to(top.dtype))
    return torch.cat([top, *means], dim=-1)
