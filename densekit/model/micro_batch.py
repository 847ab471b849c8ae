"""The micro-batch: samples packed end to end, from collation to the forward pass."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """T tokens in S sequences, with I images, M image slots and K label positions.

    What travels to the device and what says where it came from are one object: no sample can be
    computed under the id of another.
    """

    input_ids: Tensor
    """int64 [T]; image slots hold 0."""
    position_ids: Tensor
    """int64 [T], from 0 in each sequence."""
    cu_seqlens: Tensor
    """int32 [S + 1], 0 first and T last; stays on the CPU, where it is read."""
    pixels: Tensor
    """uint8 [I, 3, H, W] views of all images; I may be 0."""
    image_slots: Tensor
    """int64 [M] positions of image features in the micro-batch."""
    feature_index: Tensor
    """int64 [M] which of the I * N feature tokens fills each slot; -1: the newline vector of
    AnyRes, whose images have several views.
    """
    label_positions: Tensor
    """int64 [K] positions whose next token, in the same sequence, is a target."""
    targets: Tensor
    """int64 [K]."""
    weights: Tensor
    """float32 [K] loss weight of each target."""
    positions: tuple[int, ...] = ()
    """Place of each sample in its optimizer step, in official order."""
    sample_ids: tuple[str, ...] = ()
    image_digests: tuple[str | None, ...] = ()
    """Of each sample: 16 hex digits of the hash of the image file's bytes as read; None for text
    only.
    """

    def to(self, device: torch.device) -> Self:
        """The same with every tensor but cu_seqlens on `device`; copies of pinned ones do not
        block.
        """
        moved: dict[str, Any] = {
            name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """The same in page-locked host RAM, from which a GPU copies by itself."""
        pinned: dict[str, Any] = {
            name: tensor.pin_memory() for name, tensor in self._tensors().items()
        }
        return replace(self, **pinned)

    def _tensors(self) -> dict[str, Tensor]:
        """Those that travel to the device."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.type is Tensor and field.name != "cu_seqlens"
        }
