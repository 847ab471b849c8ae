"""The order in which the official trainer visits the samples, epoch after epoch.

Method and evidence: docs/upstream.md, U10; recorded cases in
tests/golden/sampler/sampler.json and the 20-step runs beside it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from densekit.batching.rng import DEFAULT_SEED, Indices, TorchGenerator
from densekit.errors import DataError, UsageError
from densekit.spec.math import Reference


def split_to_even_chunks(
    indices: Sequence[int], lengths: Sequence[int], num_chunks: int
) -> list[list[int]]:
    """Deal `indices` into `num_chunks` chunks of about equal total length.

    `lengths` is looked up by index (words per sample). A count that `num_chunks` does not divide is
    dealt in turn, lengths ignored; otherwise each index goes to the shortest chunk that still has
    room.
    """
    if len(indices) % num_chunks != 0:
        return [list(indices[start::num_chunks]) for start in range(num_chunks)]
    room = len(indices) // num_chunks
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    totals: list[float] = [0.0] * num_chunks
    for index in indices:
        shortest = totals.index(min(totals))
        chunks[shortest].append(index)
        totals[shortest] = (
            totals[shortest] + lengths[index] if len(chunks[shortest]) < room else math.inf
        )
    return chunks


def _cut(items: Sequence[int], size: int) -> list[list[int]]:
    """Cut `items` into consecutive lists of `size`; the last one may be shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def length_grouped_indices(
    lengths: Sequence[int], batch_size: int, world_size: int, *, generator: TorchGenerator
) -> list[int]:
    """Return a permutation of range(len(lengths)) in which each megabatch holds its longest samples
    first.

    A megabatch is world_size x batch_size consecutive samples of a random permutation, sorted by
    length (descending, ties in permutation order) and dealt to the devices in even chunks.
    """
    permutation = generator.randperm(len(lengths)).tolist()
    order: list[int] = []
    for megabatch in _cut(permutation, world_size * batch_size):
        by_length = sorted(megabatch, key=lengths.__getitem__, reverse=True)
        for chunk in split_to_even_chunks(by_length, lengths, world_size):
            order.extend(chunk)
    return order


def modality_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    *,
    global_generator: TorchGenerator,
    generator: TorchGenerator | None = None,
) -> list[int]:
    """Return a permutation of range(len(lengths)) whose megabatches hold images only or text only.

    `lengths` are words per sample, negative for text-only ones. The shuffles inside a modality
    always use `global_generator`; the order of the megabatches uses `generator`, or the global one
    for None. The two last, possibly incomplete megabatches are joined into one mixed batch at the
    end. Raises DataError for a length of 0.
    """
    separate = global_generator if generator is None else generator
    if 0 in lengths:
        raise DataError(
            f"sample {list(lengths).index(0)} has length 0, so its modality is unknown; "
            "remove the entry or give it words"
        )
    image = [index for index, length in enumerate(lengths) if length > 0]
    text = [index for index, length in enumerate(lengths) if length < 0]
    if not image or not text:
        return length_grouped_indices(lengths, batch_size, world_size, generator=separate)

    whole: list[list[int]] = []
    rest: list[int] = []
    for members in (image, text):
        sizes = [abs(lengths[index]) for index in members]
        grouped = length_grouped_indices(sizes, batch_size, world_size, generator=global_generator)
        megabatches = _cut([members[position] for position in grouped], world_size * batch_size)
        # The last one is set aside even when it is complete, as in the official sampler.
        whole.extend(megabatches[:-1])
        rest.extend(megabatches[-1])
    shuffled = [whole[position] for position in separate.randperm(len(whole)).tolist()]
    return [index for megabatch in [*shuffled, sorted(rest)] for index in megabatch]


class OfficialOrder:
    """Sample order of every epoch of one official run, from its seed and its reference topology.

    One process: at the start of each epoch the data loader draws one int64 (its base seed) from the
    global generator; a grouped sampler then continues on that generator, an ungrouped one draws a
    second int64 and permutes with a generator seeded by it. Several processes: accelerate gives the
    sampler one generator of its own, seeded with torch's default whatever the run's seed, which
    lives on from epoch to epoch; the base-seed draw and the shuffles inside a modality stay on the
    global generator. Nothing else may draw from torch's global CPU generator (dropout on the CPU
    would), and no other draw is known.
    """

    def __init__(
        self,
        *,
        modality_lengths: npt.NDArray[np.int64],
        topology: Reference,
        seed: int,
        group_by_modality: bool,
    ) -> None:
        """Describe one run; nothing is drawn until `epoch` is called.

        `modality_lengths`, shape (samples,): words per sample, negative for text-only ones; without
        `group_by_modality` only their number counts. `seed` is the trainer's seed. Raises DataError
        when there are no samples.
        """
        if modality_lengths.ndim != 1 or modality_lengths.size == 0:
            raise DataError(
                f"modality_lengths has shape {modality_lengths.shape}; give one length per sample"
            )
        self.topology, self.seed, self.group_by_modality = topology, seed, group_by_modality
        self.num_samples = int(modality_lengths.size)
        self._lengths: list[int] = modality_lengths.tolist()
        self._current: Indices = np.empty(0, dtype=np.int64)
        self._restart()

    def epoch(self, k: int) -> Indices:
        """Return the order of epoch `k` (0, 1, ...), a read-only permutation of shape (samples,).

        Cheap when `k` does not go backwards: an earlier epoch is replayed from the seed. Raises
        UsageError for a negative `k`, DataError for a length of 0 when grouping by modality.
        """
        if k < 0:
            raise UsageError(f"epoch {k}: epochs are counted from 0")
        if k < self._next_epoch - 1:
            self._restart()
        while self._next_epoch <= k:
            self._current = self._draw_epoch()
            self._current.setflags(write=False)
            self._next_epoch += 1
        return self._current

    def _restart(self) -> None:
        self._global = TorchGenerator(self.seed)
        self._sampler = TorchGenerator(DEFAULT_SEED) if self.topology.gpus > 1 else None
        self._next_epoch = 0

    def _draw_epoch(self) -> Indices:
        # The data loader's base seed: unused without worker processes, but drawn all the same.
        self._global.int64()
        if self.group_by_modality:
            order = modality_grouped_indices(
                self._lengths,
                self.topology.per_device_batch_size,
                self.topology.groups_per_step,
                global_generator=self._global,
                generator=self._sampler,
            )
            return np.array(order, dtype=np.int64)
        sampler = self._sampler or TorchGenerator(self._global.int64())
        return sampler.randperm(self.num_samples)
