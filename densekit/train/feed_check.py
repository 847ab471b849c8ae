"""What the ranks really feed in a step, gathered and compared with what the order asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from densekit.model.micro_batch import MicroBatch

STOP, SAVE, SAVING, SAVE_FAILED = 1, 2, 4, 8
"""Bits that travel with the ids: a rank was asked to stop; a checkpoint is due; a rank still writes
one, or could not. All ranks act on the same step.
"""
NO_SAMPLE = -1
COLUMNS = 5  # position, sample index, sample digest, has an image, image digest


@dataclass(frozen=True, kw_only=True)
class Feed:
    """One step as fed by all ranks, in official order, and the flags any rank raised."""

    samples: list[str]
    images: list[str | None]
    flags: int


def gather_feed(
    micro_batches: Sequence[MicroBatch],
    *,
    flags: int,
    world_size: int,
    device: torch.device,
    step_size: int,
) -> Feed:
    """Collect from every rank the ids and image digests that went through collation with the
    tensors.

    `step_size`: samples the step should hold over all ranks. One collective of a few kilobytes.
    Raises RuntimeError when a place in the step was fed twice or by nobody: that is a bug, never a
    user's data.
    """
    room = -(-step_size // world_size)
    local = torch.full((room + 1, COLUMNS), NO_SAMPLE, dtype=torch.int64)
    fed = [
        entry
        for batch in micro_batches
        for entry in zip(batch.positions, batch.sample_ids, batch.image_digests, strict=True)
    ]
    if len(fed) > room:
        raise RuntimeError(
            f"a rank feeds {len(fed)} samples of a step of {step_size} on {world_size} ranks"
        )
    for place, (position, sample_id, image) in enumerate(fed):
        index, digest = sample_id.split(":")
        entry = [
            position,
            int(index),
            _signed(digest),
            int(image is not None),
            _signed(image or "0"),
        ]
        local[place] = torch.tensor(entry)
    local[room, 0] = flags
    everyone = local[None] if world_size == 1 else _all_gather(local, world_size, device)
    flags = 0
    for value in everyone[:, room, 0].tolist():
        flags |= value
    entries = [
        entry for entry in everyone[:, :room].reshape(-1, COLUMNS).tolist() if entry[0] != NO_SAMPLE
    ]
    entries.sort()
    if [entry[0] for entry in entries] != list(range(step_size)):
        fed_places = [entry[0] for entry in entries]
        raise RuntimeError(
            f"the ranks fed positions {fed_places} of a step of {step_size} samples; each once"
        )
    return Feed(
        samples=[f"{index}:{_hex(digest)}" for _, index, digest, _, _ in entries],
        images=[_hex(image) if has_image else None for _, _, _, has_image, image in entries],
        flags=flags,
    )


def _all_gather(local: Tensor, world_size: int, device: torch.device) -> Tensor:
    everyone = torch.empty((world_size, *local.shape), dtype=local.dtype, device=device)
    distributed.all_gather(list(everyone), local.to(device))
    return everyone.cpu()


def _signed(digest: str) -> int:
    """16 hex digits as the int64 with the same bits."""
    value = int(digest, 16)
    return value - (1 << 64) if value >= 1 << 63 else value


def _hex(value: int) -> str:
    return f"{value & (1 << 64) - 1:016x}"
