"""SCI with a 3 x 3 Conv2d over the patches of each layer before they are joined (Table 6)."""

from collections.abc import Iterable
from math import isqrt

from torch import Tensor, nn

from densekit.model.connectors import sci
from densekit.model.connectors.learned import LearnedConnector
from densekit.spec.connector import CONV2D_SIZE, Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """The frozen half: [I, P, D] -> [I, P, (1 + n) * D]."""
    return sci.join(hidden_states, connector, high)


class PatchConvolution(nn.Conv2d):
    """[I, P, D] -> [I, P, D]: the tokens are the patches of a square image, row by row."""

    def forward(self, tokens: Tensor) -> Tensor:
        side = isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        return super().forward(grid).flatten(2).transpose(1, 2)


class Trained(LearnedConnector):
    """[I, P, (1 + n) * D] -> the same shape."""

    @staticmethod
    def one(width: int, *, bias: bool) -> nn.Module:
        return PatchConvolution(width, width, CONV2D_SIZE, padding=CONV2D_SIZE // 2, bias=bias)
