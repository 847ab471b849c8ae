"""Tokens and labels of every sample under one tokenizer and template, kept once they were counted.

Loss weights and balance of a step need these of all its samples, the samples themselves only of a
rank's own. So whoever tokenises a sample first writes its counts down for the other ranks and
workers of the host, for the next epoch and for the next run: in a mapped file of 8 bytes a sample,
each written as one whole, so that it needs no lock. A record that is lost is counted again; one
that disagrees with what is tokenised later is an error.
"""

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.whole import written_whole
from densekit.text.encode import EncodedSample
from densekit.text.sequence import ModelSequence
from densekit.text.source import text_source_sha256
from densekit.text.tokenizers.base import TOKENIZER_FILES

# Goes up when the meaning of a record changes.
SCHEMA = 1
FOLDER = "tokens"
NOTES = ("first_turn_dropped", "truncated", "masked_mismatch", "labels_shifted", "no_labels")
"""What `EncodedSample.notes` may hold, a bit each."""
_COUNT_BITS = 22
_MOST = (1 << _COUNT_BITS) - 1
_CHECK_AT = 2 * _COUNT_BITS + len(NOTES)
_COUNTED = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One sample as the model sees it."""

    tokens: int
    """Image slots included."""
    labels: int
    """After the shift by one."""
    notes: tuple[str, ...]

    @classmethod
    def of(cls, sequence: ModelSequence, encoded: EncodedSample) -> "Counted":
        """The counts of a sample that was tokenised."""
        return cls(tokens=len(sequence.input_ids), labels=sequence.label_count, notes=encoded.notes)


class TokenCounts:
    """The counts of the samples of one annotation file, by their index in it."""

    def __init__(
        self, path: Path, records: npt.NDArray[np.uint64], *, shared: bool = False
    ) -> None:
        """Records in `path`; use `TokenCounts.open`. `shared`: whether another process finds them
        there.
        """
        self.path, self._records, self.shared = path, records, shared

    @classmethod
    def open(cls, cache: Path, key: Mapping[str, Any], samples: int) -> "TokenCounts":
        """Map the counts that belong to `key`, everything they depend on. Where the cache cannot be
        written to, this process alone has them.
        """
        path = cache / FOLDER / f"{json_sha256({'schema': SCHEMA, **key})}.npy"
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                # Of two that begin at once one's counts are lost, and counted again.
                with written_whole(path) as temporary, temporary.open("wb") as file:
                    np.save(file, np.zeros(samples, dtype=np.uint64))
            records = np.load(path, mmap_mode="r+", allow_pickle=False)
            if records.shape != (samples,) or records.dtype != np.uint64:
                raise ValueError(f"it does not hold {samples} counts")
        except (OSError, ValueError, EOFError) as error:
            print(f"{path}: not used ({error}); every rank counts tokens itself", file=sys.stderr)
            return cls(path, np.zeros(samples, dtype=np.uint64))
        return cls(path, np.asarray(records), shared=True)

    def __reduce__(self) -> Any:
        """Another process that they are handed to maps the same file."""
        return _mapped, (self.path, len(self._records))

    def get(self, place: int) -> Counted | None:
        """The counts of one sample; None where nobody counted it yet."""
        record = int(self._records[place])
        if not record or record != _checked(place, record & (1 << _CHECK_AT) - 1):
            return None
        bits = record >> 2 * _COUNT_BITS
        return Counted(
            tokens=record & _MOST,
            labels=record >> _COUNT_BITS & _MOST,
            notes=tuple(note for number, note in enumerate(NOTES) if bits >> number & 1),
        )

    def put(self, place: int, counted: Counted) -> None:
        """Write down the counts of one sample."""
        if max(counted.tokens, counted.labels) > _MOST:
            return  # nothing in this world, but it would be read as something else
        bits = sum(1 << NOTES.index(note) for note in counted.notes)
        value = counted.tokens | counted.labels << _COUNT_BITS | bits << 2 * _COUNT_BITS
        self._records[place] = _checked(place, value)

    def missing(self) -> list[int]:
        """The samples that nobody counted yet, and those whose record was damaged."""
        return [place for place in range(len(self._records)) if self.get(place) is None]


def counting_key(
    *,
    annotations_sha256: str,
    tokenizer: Path,
    template: str,
    semantics: str,
    max_length: int,
    image_tokens: int,
    sizes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that decides how many tokens and labels a sample has; `sizes`: where an image's
    tokens depend on its size, how.
    """
    files = [tokenizer / name for name in TOKENIZER_FILES]
    return {
        "annotations": annotations_sha256,
        "tokenizer": {path.name: file_sha256(path) for path in files if path.is_file()},
        "template": template,
        "semantics": semantics,
        "max_length": max_length,
        "image_tokens": image_tokens,
        **({} if sizes is None else {"sizes": sizes}),
        "code": text_source_sha256(),
        "libraries": {name: version(name) for name in ("sentencepiece", "tokenizers")},
    }


def _mapped(path: Path, samples: int) -> TokenCounts:
    try:
        records = np.load(path, mmap_mode="r+", allow_pickle=False)
        return TokenCounts(path, np.asarray(records), shared=True)
    except (OSError, ValueError, EOFError):
        return TokenCounts(path, np.zeros(samples, dtype=np.uint64))


def _checked(place: int, value: int) -> int:
    """A record with the check of its bits, so that a damaged one counts as none."""
    check = zlib.crc32(f"{place}:{value}".encode()) & (1 << 63 - _CHECK_AT) - 1
    return value | check << _CHECK_AT | _COUNTED
