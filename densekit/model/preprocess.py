"""Pixels on the device: uint8 to normalised float32 through a lookup table."""

import torch
from torch import Tensor


def normalise(pixels: Tensor, table: Tensor) -> Tensor:
    """uint8 [I, 3, H, W] -> float32 [I, 3, H, W] through a lookup table [256, 3] on the same
    device.
    """
    channels = [table[:, channel][pixels[:, channel].long()] for channel in range(3)]
    return torch.stack(channels, dim=1)


def pixel_values(pixels: Tensor, table: Tensor) -> Tensor:
    """What the tower gets of a micro-batch: its normalised images, or one zero image without any.

    Tower and projector run in every micro-batch. The official code feeds zeros too, not a
    normalised black image (docs/upstream.md, Q8).
    """
    if len(pixels) == 0:
        return torch.zeros(1, *pixels.shape[1:], device=pixels.device, dtype=table.dtype)
    return normalise(pixels, table)
