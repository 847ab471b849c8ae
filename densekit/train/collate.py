"""Collation: the samples of one rank's share packed end to end into a micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from densekit.data.pixels import ReadImage
from densekit.errors import DataError
from densekit.model.micro_batch import MicroBatch
from densekit.spec.anyres import NEWLINE
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.spec.vision import ImageLayout
from densekit.text.sequence import ModelSequence


@dataclass(frozen=True, kw_only=True)
class WeightedSample:
    """One sample of a micro-batch, as read and with its place in the optimizer step."""

    sequence: ModelSequence
    image: ReadImage | None
    weight: float
    """Loss weight of each of its label positions."""
    position: int
    """Its place in the optimizer step, in official order."""
    sample_id: str


def pack(samples: Sequence[WeightedSample], *, layout: ImageLayout, image_size: int) -> MicroBatch:
    """Lay samples end to end; `image_size`: pixels of a view's side.

    No sample becomes one token without a label: a rank without work still calls every module.
    """
    input_ids, position_ids, slots, features = [], [], [], []
    label_positions, targets, token_weights = [], [], []
    cu_seqlens, first_feature = [0], 0
    for sample in samples:
        ids, labels = sample.sequence.input_ids, sample.sequence.labels
        start, length = cu_seqlens[-1], len(ids)
        is_slot = ids == IMAGE_TOKEN_ID
        input_ids.append(np.where(is_slot, 0, ids))
        position_ids.append(np.arange(length))
        slots.append(start + np.flatnonzero(is_slot))
        features.append(_features(sample, int(is_slot.sum()), layout, first_feature))
        if sample.image is not None:
            first_feature += layout.tiles(sample.image.size) * layout.tile_tokens
        labelled = np.flatnonzero(labels[1:] != IGNORE_INDEX)
        label_positions.append(start + labelled)
        targets.append(labels[1:][labelled])
        token_weights.append(np.full(len(labelled), sample.weight))
        cu_seqlens.append(start + length)
    if cu_seqlens[-1] == 0:
        input_ids = position_ids = [np.zeros(1, dtype=np.int64)]
        cu_seqlens = [0, 1]
    images = [sample.image for sample in samples]
    views = (-1, 3, image_size, image_size)
    pixels = [image.pixels.reshape(views) for image in images if image is not None]
    none = np.zeros((0, 3, image_size, image_size), dtype=np.uint8)
    return MicroBatch(
        input_ids=_int64(input_ids),
        position_ids=_int64(position_ids),
        cu_seqlens=torch.tensor(cu_seqlens, dtype=torch.int32),
        pixels=torch.from_numpy(np.concatenate(pixels) if pixels else none),
        image_slots=_int64(slots),
        feature_index=_int64(features),
        label_positions=_int64(label_positions),
        targets=_int64(targets),
        weights=torch.from_numpy(np.concatenate([*token_weights, np.zeros(0)])).float(),
        positions=tuple(sample.position for sample in samples),
        sample_ids=tuple(sample.sample_id for sample in samples),
        image_digests=tuple(image.digest if image is not None else None for image in images),
    )


def _features(
    sample: WeightedSample, slots: int, layout: ImageLayout, first: int
) -> npt.NDArray[np.int64]:
    """Which feature token fills each slot of a sample, `first` being its image's first one; NEWLINE
    for the newline vector.
    """
    if sample.image is None:
        order = np.arange(0)
    elif layout.varies:
        order = np.array(layout.order(sample.image.size), dtype=np.int64)
    else:  # one after the other
        order = np.arange(layout.max_tokens)
    if slots > len(order):  # they would show another sample's image
        raise DataError(
            f"sample {sample.sample_id}: {slots} image slots and an image of {len(order)} tokens: "
            "one <image> tag stands for one image"
        )
    return np.where(order == NEWLINE, NEWLINE, first + order)[:slots]


def _int64(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int64))
