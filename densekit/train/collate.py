"""Collation: samples laid end to end into one flat row of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densekit.data.pixels import ReadImage
from densekit.model.preprocess import normalise
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.text.sequence import ModelSequence


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """One micro-batch as a flat row: T tokens in S segments, I images, M image slots, K supervised
    positions.
    """

    input_ids: Tensor
    """int64 [T]; image slots hold 0."""
    position_ids: Tensor
    """int64 [T], from 0 in each segment."""
    cu_seq_lens: Tensor
    """int32 [S + 1]; stays on the CPU."""
    pixels: Tensor
    """uint8 [I, 3, H, W]; I may be 0."""
    image_slots: Tensor
    """int64 [M] positions of image features in the row."""
    feature_index: Tensor
    """int64 [M] index among all I * N feature tokens."""
    supervised: Tensor
    """int64 [K] positions whose next token, in the same segment, is a target."""
    targets: Tensor
    """int64 [K]."""
    weights: Tensor
    """float32 [K] loss weight of each target."""
    positions: tuple[int, ...]
    """Place of each sample in its optimiser step, in official order."""
    sample_ids: tuple[str, ...]
    image_digests: tuple[str | None, ...]
    """Of each sample: 16 hex digits of the hash of the image file's bytes as read; None for text
    only.
    """

    def model_inputs(self, device: torch.device, table: Tensor) -> dict[str, Tensor]:
        """Arguments of the model's forward on `device`; pixels go through the lookup table there.

        A row without images gets one zero image with no slot: the tower and the projector still run
        (the official code feeds zeros, not a normalised black image: recorded quirk 8).
        """
        pixels = normalise(self.pixels.to(device), table)
        if len(pixels) == 0:
            pixels = torch.zeros(1, *self.pixels.shape[1:], device=device, dtype=table.dtype)
        names = (
            "input_ids",
            "position_ids",
            "image_slots",
            "feature_index",
            "supervised",
            "targets",
            "weights",
        )
        moved = {name: getattr(self, name).to(device) for name in names}
        return {**moved, "cu_seq_lens": self.cu_seq_lens, "pixel_values": pixels}


def pack_row(
    sequences: Sequence[ModelSequence],
    images: Sequence[ReadImage | None],
    weights: Sequence[float],
    *,
    positions: Sequence[int],
    sample_ids: Sequence[str],
    image_tokens: int,
    image_size: int,
) -> PackedRow:
    """Lay samples end to end; `weights` is each sample's weight per supervised token.

    An empty micro-batch becomes a row of one unsupervised token: a rank without work still calls
    every module.
    """
    input_ids = [np.zeros(0, dtype=np.int64)]
    position_ids, slots, features, supervised, targets, token_weights = [], [], [], [], [], []
    boundaries = [0]
    pixels = [image.pixels for image in images if image is not None]
    image_number = 0
    for sequence, image, weight in zip(sequences, images, weights, strict=True):
        start, length = boundaries[-1], len(sequence.input_ids)
        is_slot = sequence.input_ids == IMAGE_TOKEN_ID
        input_ids.append(np.where(is_slot, 0, sequence.input_ids))
        position_ids.append(np.arange(length))
        slots.append(start + np.flatnonzero(is_slot))
        features.append(image_number * image_tokens + sequence.feature_index)
        image_number += image is not None
        kept = np.flatnonzero(sequence.labels[1:] != IGNORE_INDEX)
        supervised.append(start + kept)
        targets.append(sequence.labels[1:][kept])
        token_weights.append(np.full(len(kept), weight))
        boundaries.append(start + length)
    if boundaries[-1] == 0:
        input_ids, position_ids, boundaries = (
            [np.zeros(1, dtype=np.int64)],
            [np.zeros(1, dtype=np.int64)],
            [0, 1],
        )
    pixel_array = (
        np.stack(pixels) if pixels else np.zeros((0, 3, image_size, image_size), dtype=np.uint8)
    )
    return PackedRow(
        input_ids=_int64(input_ids),
        position_ids=_int64(position_ids),
        cu_seq_lens=torch.tensor(boundaries, dtype=torch.int32),
        pixels=torch.from_numpy(pixel_array),
        image_slots=_int64(slots),
        feature_index=_int64(features),
        supervised=_int64(supervised),
        targets=_int64(targets),
        weights=torch.from_numpy(np.concatenate([*token_weights, np.zeros(0)])).float(),
        positions=tuple(positions),
        sample_ids=tuple(sample_ids),
        image_digests=tuple(image.digest if image is not None else None for image in images),
    )


def _int64(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int64))
