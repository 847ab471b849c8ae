"""DCI with LayerNorm and a Linear on each layer before the means (Table 6).

Linear is linear, and so are LayerNorm's weight and bias: mean(Linear(LayerNorm(x))) is Linear of
weight * mean(x normalised) + bias. So the frozen half normalises every state and takes the means,
and what is trained runs once a group instead of once a layer.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densekit.model.connectors import dci
from densekit.model.connectors.learned import LearnedConnector
from densekit.spec.connector import Connector

EPS = 1e-5
"""Of the LayerNorm: torch's default."""


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """The frozen half: [I, P, D] -> [I, P, (1 + groups) * D], the means of normalised states; the
    high-level layer is normalised where it passes the module too.
    """
    assert connector.learned is not None
    raw: list[Tensor] = []

    def normalised() -> Iterator[Tensor]:
        for index, state in enumerate(hidden_states):
            if index == high:
                raw.append(state)
            yield F.layer_norm(state, state.shape[-1:], None, None, EPS)

    features = dci.join(normalised(), connector, high)
    if connector.learned.high_level:
        return features
    return torch.cat([raw[0], features[..., raw[0].shape[-1] :]], dim=-1)


class Affine(nn.LayerNorm):
    """Weight and bias of a LayerNorm, on what is normalised already."""

    def forward(self, normalised: Tensor) -> Tensor:
        return normalised * self.weight + self.bias


class NormedLinear(nn.Module):
    """[I, P, D] -> [I, P, D]."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.norm = Affine(width)
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, normalised: Tensor) -> Tensor:
        mapped: Tensor = self.linear(self.norm(normalised))
        return mapped


class Trained(LearnedConnector):
    """[I, P, (1 + groups) * D] -> the same shape."""

    @staticmethod
    def one(width: int, *, bias: bool) -> nn.Module:
        return NormedLinear(width, bias=bias)
