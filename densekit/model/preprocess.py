"""Pixels on the device: uint8 to normalised float32 through a lookup table."""

import torch
from torch import Tensor


def normalise(pixels: Tensor, table: Tensor) -> Tensor:
    """uint8 [I, 3, H, W] -> float32 [I, 3, H, W] through a lookup table [256, 3] on the same
    device.
    """
    channels = [table[:, channel][pixels[:, channel].long()] for channel in range(3)]
    return torch.stack(channels, dim=1)
