"""A video inside a prompt: the tokens of its frames, pooled, one frame after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.spec.video import POOL


def joined_frames(frames: Sequence[Tensor], *, pooled: bool) -> Tensor:
    """T frames [N, H] -> [T * N', H]; pooled: N' = N // 2, the largest values of neighbouring
    tokens in the order of the sequence, an odd last token dropped.
    """
    together = torch.stack([*frames])
    if pooled:
        together = F.max_pool1d(together.transpose(1, 2), POOL, POOL).transpose(1, 2)
    return together.flatten(0, 1)
