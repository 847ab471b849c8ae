"""The sample index: length and content digest of every entry, all that order and certificate need
of a data set.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from densekit.data.annotations import Annotations
from densekit.errors import DataError
from densekit.text.lengths import modality_length


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
        """That of an annotation file; raises DataError naming file, sample and id for a
        conversation whose words cannot be counted.
        """
        index = annotations.entries
        wordless = np.flatnonzero(index.words == 0)
        if wordless.size:
            sample = annotations[int(wordless[0])]
            try:
                modality_length(sample.conversations, sample.image is not None)
            except DataError as error:
                raise DataError(
                    f"{annotations.path}: sample {sample.index} (id {sample.entry_id}): {error}"
                ) from None
        return cls(
            annotations_sha256=index.sha256, modality_lengths=index.words, digests=index.digests
        )

    def take(self, places: npt.NDArray[np.int64]) -> "SampleIndex":
        """The entries at these indices of the file, in this order; each keeps its id."""
        return SampleIndex(
            annotations_sha256=self.annotations_sha256,
            modality_lengths=self.modality_lengths[places],
            digests=self.digests[places],
            places=places,
        )

    def place(self, index: int) -> int:
        """The index in the file of entry `index`."""
        return index if self.places is None else int(self.places[index])

    def sample_id(self, index: int) -> str:
        """`Sample.sample_id` of entry `index`, from its stored digest."""
        return f"{self.place(index)}:{int(self.digests[index]):016x}"

    def sample_ids(self) -> list[str]:
        """`Sample.sample_id` of every entry."""
        places = range(len(self.digests)) if self.places is None else self.places.tolist()
        digests = self.digests.tolist()
        return [f"{place}:{digest:016x}" for place, digest in zip(places, digests, strict=True)]
