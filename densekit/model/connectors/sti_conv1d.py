"""STI with a Conv1d, kernel and stride 8 tokens, in the place of the pooling (Table 6)."""

from collections.abc import Iterable

from torch import Tensor, nn

from densekit.model.connectors import sci
from densekit.model.connectors.learned import LearnedConnector
from densekit.spec.connector import POOL_SIZE, Connector


def join(hidden_states: Iterable[Tensor], connector: Connector, high: int) -> Tensor:
    """The frozen half: [I, P, D] -> [I, P, (1 + n) * D]."""
    return sci.join(hidden_states, connector, high)


class TokenConvolution(nn.Conv1d):
    """[I, P, D] -> [I, P // 8, D], over the tokens row by row; those that do not fill a kernel are
    dropped, as the pooling does.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class Trained(LearnedConnector):
    """[I, P, (1 + n) * D] -> [I, P + n * (P // 8), D]."""

    joined = 1

    @staticmethod
    def one(width: int, *, bias: bool) -> nn.Module:
        return TokenConvolution(width, width, POOL_SIZE, stride=POOL_SIZE, bias=bias)
