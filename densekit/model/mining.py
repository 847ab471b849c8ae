"""Patch info mining: what each patch of the vision tower takes of its window of high-resolution
positions (Mini-Gemini, arXiv 2403.18814, section 3.1).
"""

import torch
from torch import Tensor, nn


class PatchMining(nn.Module):
    """One query per patch on the positions of its window.

    query, aux, val: LayerNorm and Linear to the D channels of the vision tower. They stand inside
    the projector, as `projector.mining.*`.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.width = width
        self.query = _projection(width, width)
        self.aux = _projection(channels, width)
        self.val = _projection(channels, width)

    def forward(self, dense_features: Tensor, windows: Tensor) -> Tensor:
        """[I, P, C] and the windows [I, P, W, A] -> [I, P, C]: to the first D channels, the
        high-level layer, what was mined is added.
        """
        high, rest = dense_features.tensor_split([self.width], dim=-1)
        mined = (self.scores(high, windows).softmax(-1) @ self.val(windows)).squeeze(2)
        return torch.cat([high + mined, rest], dim=-1)

    def scores(self, high: Tensor, windows: Tensor) -> Tensor:
        """[I, P, 1, W] of a patch's high-level layer [I, P, D] and each position of its window."""
        query_IP1D = self.query(high).unsqueeze(2)
        # Keys are divided before the product, as in the official code.
        keys_IPDW = (self.aux(windows) / self.width**0.5).transpose(2, 3)
        return torch.nan_to_num(query_IP1D @ keys_IPDW)


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs))
