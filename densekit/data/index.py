"""The sample index: length and content digest of every entry, all that order and certificate need
of a data set.

Making it reads every word of the annotation file, so it is kept in the cache under the file's own
hash.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densekit.data.annotations import Annotations
from densekit.errors import DataError
from densekit.files.arrays import keep_arrays
from densekit.text.lengths import modality_length

# Goes up when the meaning of a stored array changes: files of another schema are rebuilt.
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleIndex:
    """Lengths and digests of the N entries of one annotation file."""

    annotations_sha256: str
    """SHA-256 (hex) of the file's bytes."""
    modality_lengths: npt.NDArray[np.int64]
    """Words over all turns, shape (N,); negative for a text-only entry."""
    digests: npt.NDArray[np.uint64]
    """First 16 hex digits of the SHA-256 of the canonical entry, shape (N,)."""
    places: npt.NDArray[np.int64] | None = None
    """Index in the file of each entry, shape (N,); None: its own index."""

    @classmethod
    def of(cls, annotations: Annotations) -> "SampleIndex":
        """Measure every entry; raises DataError naming file, sample and id for a conversation
        without words.
        """
        lengths = np.empty(len(annotations), dtype=np.int64)
        digests = np.empty(len(annotations), dtype=np.uint64)
        for sample in annotations:
            try:
                lengths[sample.index] = modality_length(
                    sample.conversations, sample.image is not None
                )
            except DataError as error:
                raise DataError(
                    f"{annotations.path}: sample {sample.index} (id {sample.entry_id}): {error}"
                ) from None
            digests[sample.index] = int(sample.sample_id.partition(":")[2], 16)
        return cls(annotations_sha256=annotations.sha256, modality_lengths=lengths, digests=digests)

    def take(self, places: npt.NDArray[np.int64]) -> "SampleIndex":
        """The entries at these indices of the file, in this order; each keeps its id."""
        return SampleIndex(
            annotations_sha256=self.annotations_sha256,
            modality_lengths=self.modality_lengths[places],
            digests=self.digests[places],
            places=places,
        )

    def sample_id(self, index: int) -> str:
        """`Sample.sample_id` of entry `index`, from its stored digest."""
        place = index if self.places is None else int(self.places[index])
        return f"{place}:{int(self.digests[index]):016x}"

    def sample_ids(self) -> list[str]:
        """`Sample.sample_id` of every entry."""
        places = range(len(self.digests)) if self.places is None else self.places.tolist()
        digests = self.digests.tolist()
        return [f"{place}:{digest:016x}" for place, digest in zip(places, digests, strict=True)]


def load_index(annotations: Annotations, cache: Path) -> SampleIndex:
    """Return the index of `annotations`, from `<cache>/index/<sha256>.npz` when that is there, else
    made and kept.

    A file that is damaged is rebuilt, and said so on the terminal. Raises DataError as
    `SampleIndex.of`.
    """
    path = cache / "index" / f"{annotations.sha256}.npz"
    if path.is_file():
        try:
            return _read(path, annotations)
        except (
            Exception
        ) as error:  # numpy and zipfile raise half a dozen kinds, and a cache can always be rebuilt
            print(f"{path}: damaged ({error}); it is rebuilt", file=sys.stderr)
    index = SampleIndex.of(annotations)
    keep_arrays(path, schema=SCHEMA, modality_lengths=index.modality_lengths, digests=index.digests)
    return index


def _read(path: Path, annotations: Annotations) -> SampleIndex:
    with np.load(path, allow_pickle=False) as arrays:
        schema, lengths, digests = arrays["schema"], arrays["modality_lengths"], arrays["digests"]
    shape = (len(annotations),)
    if not (schema == SCHEMA and lengths.shape == digests.shape == shape):
        raise ValueError(f"not an index of {len(annotations)} samples in schema {SCHEMA}")
    if lengths.dtype != np.int64 or digests.dtype != np.uint64:
        raise ValueError(
            f"arrays of {lengths.dtype} and {digests.dtype} where int64 and uint64 are due"
        )
    return SampleIndex(
        annotations_sha256=annotations.sha256, modality_lengths=lengths, digests=digests
    )
