"""The projector: from dense features to embeddings of the language model."""

from torch import Tensor, nn

from densekit.model.connectors import trained_connector
from densekit.model.connectors.reduction import mean_of_blocks
from densekit.model.mining import PatchMining
from densekit.spec.connector import Connector


class Projector(nn.Module):
    """mlp2x_gelu: Linear(C -> H), GELU, Linear(H -> H), with the official parameter names 0.* and
    2.*; and what a connector does behind the frozen towers: patch info mining `mining.*`, its
    trainable modules `connector.*`, and its reduction of tokens, before or after the projector.

        dense_features -> (mining.*) -> (connector.*) -> (2 x 2 means) -> 0, 1, 2 -> (2 x 2 means)

    `window_channels`: those of a high-resolution tower, where the connector mines.
    """

    def __init__(
        self,
        connector: Connector,
        tower_width: int,
        hidden_size: int,
        *,
        window_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.mining = None
        if connector.mining is not None:
            assert window_channels is not None, "a connector that mines has a second tower"
            self.mining = PatchMining(tower_width, window_channels)
        self.connector = trained_connector(connector, tower_width)
        self.reduce_tokens = connector.reduce_tokens
        self.add_module("0", nn.Linear(connector.width(tower_width), hidden_size))
        self.add_module("1", nn.GELU())
        self.add_module("2", nn.Linear(hidden_size, hidden_size))

    def forward(self, dense_features: Tensor, windows: Tensor | None = None) -> Tensor:
        """[I, N, C] of the frozen half -> [I, connector.tokens(P), H]; `windows` [I, P, W, A] of
        the high-resolution tower, where there is one.
        """
        x = dense_features
        if self.mining is not None:
            x = self.mining(x, windows)
        if self.connector is not None:
            x = self.connector(x)
        if self.reduce_tokens == "before_projector":
            x = mean_of_blocks(x)
        for name in ("0", "1", "2"):
            x = self.get_submodule(name)(x)
        return mean_of_blocks(x) if self.reduce_tokens == "after_projector" else x
