"""The newline vector of AnyRes: it ends every row of an image's tiles."""

import torch
from torch import Tensor, nn


class ImageNewline(nn.Module):
    """One vector [H], under the name `image_newline.weight`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size))

    def forward(self) -> Tensor:
        """[1, H]."""
        return self.weight[None]
