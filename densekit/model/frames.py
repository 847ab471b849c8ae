"""Videos inside of prompts: the tokens of their frames, pooled, one frame after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.spec.video import POOL


@dataclass(frozen=True, kw_only=True)
class TaggedFrames:
    """Which images of a batch are frames of a video."""

    counts: Sequence[int]
    """For each tag, in order: the frames of its video; 0: one image."""
    pooled: bool


def of_tags(images: Sequence[Tensor], frames: TaggedFrames) -> list[Tensor]:
    """What stands for each tag, [N, H] of an image and [T * N', H] of a video of T frames.

    images: [N, H] each, in order of the tags. Raises ValueError where images and tags differ.
    """
    wanted = sum(max(1, count) for count in frames.counts)
    if wanted != len(images):
        raise ValueError(f"{len(images)} images given, the tags and their videos have {wanted}")
    rest = iter(images)
    found = []
    for count in frames.counts:
        part = [next(rest) for _ in range(max(1, count))]
        found.append(joined_frames(part, pooled=frames.pooled) if count else part[0])
    return found


def joined_frames(frames: Sequence[Tensor], *, pooled: bool) -> Tensor:
    """T frames [N, H] -> [T * N', H]; pooled: N' = N // 2, the largest values of neighbouring
    tokens in the order of the sequence, an odd last token dropped.
    """
    together = torch.stack([*frames])
    if pooled:
        together = F.max_pool1d(together.transpose(1, 2), POOL, POOL).transpose(1, 2)
    return together.flatten(0, 1)
