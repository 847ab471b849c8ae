"""The samples of a LLaVA-format annotation file: a view on the file and on its index, in which an
entry is parsed when it is asked for. Opening refuses, with the place named, what would train on the
wrong thing (densekit.data.entries).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from densekit.data.annotation_file import open_annotations, parse_entry
from densekit.data.entries import Conversation, read_conversation
from densekit.data.entry_index import (
    HAS_IMAGE,
    TAGGED,
    EntryBytes,
    EntryIndex,
    KeptIndexes,
)
from densekit.data.entry_pass import UNTAGGED, entry_digest, index_entries, refuse
from densekit.errors import DataError
from densekit.files.known_hash import known_sha256


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One entry, and its place in the file."""

    index: int
    entry: dict[str, Any]
    """As read."""

    @property
    def sample_id(self) -> str:
        """Its unique name, `index:16 hex digits`: serialises and hashes the entry. SampleIndex has
        the digests of a whole file.
        """
        return f"{self.index}:{entry_digest(self.entry)}"

    @property
    def entry_id(self) -> str | None:
        """The file's own `id`, which may repeat."""
        entry_id = self.entry.get("id")
        return None if entry_id is None else str(entry_id)

    @property
    def image(self) -> str | None:
        """A path relative to the image folder; None for a text-only entry."""
        return self.conversation.image

    @property
    def conversations(self) -> list[dict[str, str]]:
        """The {"from", "value"} turns, from human and gpt whatever the file calls them."""
        return self.conversation.as_turns()

    @cached_property
    def conversation(self) -> Conversation:
        """The entry in the one form; of a checked entry, so nothing is raised."""
        return read_conversation(self.entry)


class Annotations(Sequence[Sample]):
    """A validated annotation file."""

    def __init__(
        self,
        path: Path,
        index: EntryIndex,
        texts: EntryBytes,
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """The entries of an index; use `Annotations.load`. `places`: the index in the file of each,
        where that is not its own.
        """
        self.path, self.entries = path, index
        self._texts, self._places = texts, places

    @classmethod
    def load(
        cls, path: str | Path, *, cache: Path | None = None, require_tag: bool = False
    ) -> "Annotations":
        """Open and check a JSON list of entries, or JSON Lines (densekit.data.annotation_file).

        `cache`: root of the cache, where the file's index is, and is kept once it was made; None
        reads the whole file and keeps nothing. `require_tag` refuses an image without a `<image>`
        tag (the `plain` template of stage 1 needs one). Raises DataError naming the file and the
        entry (line and column for broken JSON), and how many more entries are refused.
        """
        path = Path(path)
        with open_annotations(path) as file:

            def make(sha256: str | None = None) -> EntryIndex:
                return index_entries(path, file, sha256=sha256, require_tag=require_tag)

            if cache is None:
                index = make()
            else:
                sha256 = known_sha256(path, file, cache)
                index = KeptIndexes(cache).get(sha256, partial(make, sha256))
            texts = index.texts(path, file.fileno())
        annotations = cls(path, index, texts)
        if require_tag:
            untagged = np.flatnonzero(annotations.untagged).tolist()
            refuse(path, [(entry, UNTAGGED) for entry in untagged])
        return annotations

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file's bytes."""
        return self.entries.sha256

    @property
    def form(self) -> str | None:
        """What the file is where it is not one list: the official code reads nothing else."""
        return self.entries.form

    @property
    def untagged(self) -> npt.NDArray[np.bool_]:
        """Which entries of the file have an image but no tag (the official code feeds the image and
        then ignores it).
        """
        untagged: npt.NDArray[np.bool_] = (self.entries.flags & (HAS_IMAGE | TAGGED)) == HAS_IMAGE
        return untagged

    @property
    def has_images(self) -> bool:
        """Whether any entry of the file has an image."""
        return bool((self.entries.flags & HAS_IMAGE).any())

    def take(self, places: Sequence[int] | npt.NDArray[np.int64]) -> "Annotations":
        """The entries at these indices of the file, in this order; each keeps its index."""
        places = np.asarray(places, dtype=np.int64)
        return Annotations(self.path, self.entries, self._texts, places)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries if self._places is None else self._places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return one sample, or the list of a slice; DataError when the file changed since."""
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(len(self)))]
        return self._sample(range(len(self))[index])

    def images(self) -> Iterator[tuple[int, str]]:
        """Yield (entry index, image path) for every entry with an image; parses nothing."""
        names = self.entries.image_names()
        places = range(len(names)) if self._places is None else self._places.tolist()
        for index, place in enumerate(places):
            if (image := names[place]) is not None:
                yield index, image

    def _sample(self, index: int) -> Sample:
        place = index if self._places is None else int(self._places[index])
        raw = self._texts.read(int(self.entries.starts[place]), int(self.entries.sizes[place]))
        try:
            entry = parse_entry(raw)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise DataError(
                f"{self.path}: entry {place} is not what was read before: the file changed; run "
                "the command again"
            )
        return Sample(index=place, entry=entry)
