"""The projector: from dense features to embeddings of the language model."""

from torch import Tensor, nn

from densekit.model.connectors import trained_connector
from densekit.model.connectors.reduction import mean_of_blocks
from densekit.spec.connector import Connector


class Projector(nn.Module):
    """mlp2x_gelu: Linear(C -> H), GELU, Linear(H -> H), with the official parameter names 0.* and
    2.*; and what a connector does behind the frozen tower: its trainable modules `connector.*`,
    and its reduction of tokens, before or after the projector.

        dense_features -> (connector.*) -> (2 x 2 means) -> 0, 1, 2 -> (2 x 2 means)
    """

    def __init__(self, connector: Connector, tower_width: int, hidden_size: int) -> None:
        super().__init__()
        self.connector = trained_connector(connector, tower_width)
        self.reduce_tokens = connector.reduce_tokens
        self.add_module("0", nn.Linear(connector.width(tower_width), hidden_size))
        self.add_module("1", nn.GELU())
        self.add_module("2", nn.Linear(hidden_size, hidden_size))

    def forward(self, dense_features: Tensor) -> Tensor:
        """[I, N, C] of the frozen half -> [I, connector.tokens(P), H]."""
        x = dense_features if self.connector is None else self.connector(dense_features)
        if self.reduce_tokens == "before_projector":
            x = mean_of_blocks(x)
        for name in ("0", "1", "2"):
            x = self.get_submodule(name)(x)
        return mean_of_blocks(x) if self.reduce_tokens == "after_projector" else x
