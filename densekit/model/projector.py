"""The projector: from dense features to embeddings of the language model."""

from torch import nn


class Projector(nn.Sequential):
    """mlp2x_gelu: Linear(C -> H), GELU, Linear(H -> H), with the official parameter names 0.* and
    2.*.
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
