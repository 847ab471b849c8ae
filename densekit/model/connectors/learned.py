"""What trainable connectors have in common: a module that layers or groups pass, one for all of
them or one for each.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densekit.spec.connector import Connector


class LearnedConnector(nn.ModuleList, ABC):
    """The trainable half of a connector: [I, P, (1 + n) * D] -> [I, N, C].

    The frozen half hands over the high-level layer and n states or means of them, as channels.
    Parameters are named `projector.connector.<number>.*`; the number is 0 where one is shared.
    """

    def __init__(self, connector: Connector, width: int) -> None:
        learned = connector.learned
        assert learned is not None, connector.kind
        super().__init__(self.one(width, bias=learned.bias) for _ in range(connector.modules))
        self.extra, self.high_level = connector.extra, learned.high_level

    @staticmethod
    @abstractmethod
    def one(width: int, *, bias: bool) -> nn.Module:
        """The module that one layer or group passes: [I, P, D] -> [I, M, D]."""

    def forward(self, states: Tensor) -> Tensor:
        """[I, P, (1 + n) * D] -> [I, N, C], the high-level layer first."""
        pieces = [*states.chunk(1 + self.extra, dim=-1)]
        first = 0 if self.high_level else 1
        for index in range(first, len(pieces)):
            module = self[0] if len(self) == 1 else self[index - first]
            pieces[index] = module(pieces[index])
        return torch.cat(pieces, dim=self.joined)

    joined = -1
    """The dimension in which the pieces are joined: channels, or 1 for tokens."""
