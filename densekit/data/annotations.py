"""Reading LLaVA-format annotation files and refusing, with the place named, what would train on the
wrong thing.

What is legal follows the official code (docs/upstream.md); what is legal there but nearly always a
mistake is refused here.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from densekit.data.annotation_file import MAX_BYTES, REMEDY, parse_entries
from densekit.errors import DataError
from densekit.files.json_files import read_file
from densekit.spec.types import IMAGE_TOKEN

NAMED = 10
"""Of the entries that are refused, so many are named after the first."""
SYNONYMS = {"user": "human", "assistant": "gpt", "chatgpt": "gpt", "bing": "gpt", "model": "gpt"}
"""Who else speaks in files of ShareGPT and its relatives."""


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
        # ASCII escapes, so that a lone surrogate (they exist in scraped text) still has an encoding
        # to hash.
        canonical = json.dumps(self.entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"{self.index}:{hashlib.sha256(canonical.encode('ascii')).hexdigest()[:16]}"

    @property
    def entry_id(self) -> str | None:
        """The file's own `id`, which may repeat."""
        entry_id = self.entry.get("id")
        return None if entry_id is None else str(entry_id)

    @property
    def image(self) -> str | None:
        """A path relative to the image folder; None for a text-only entry."""
        return _image(self.entry)

    @property
    def conversations(self) -> list[dict[str, str]]:
        """The {"from", "value"} turns."""
        return [
            {"from": turn["from"], "value": turn["value"]} for turn in self.entry["conversations"]
        ]


class Annotations(Sequence[Sample]):
    """A validated annotation file. `sha256` is the hash of the file's bytes, `untagged_images` the
    number of entries with an image but no tag (the official code feeds the image and then ignores
    it).
    """

    def __init__(
        self,
        path: Path,
        entries: list[dict[str, Any]],
        *,
        sha256: str,
        untagged_images: int,
        places: Sequence[int] | None = None,
    ) -> None:
        """Wrap entries that were checked already; use `Annotations.load`. `places`: the index of
        each in the file, where that is not its own.
        """
        self.path = path
        self.sha256 = sha256
        self.untagged_images = untagged_images
        self._entries = entries
        self._places = places

    @classmethod
    def load(cls, path: str | Path, *, require_tag: bool = False) -> "Annotations":
        """Read and check a JSON list of entries, or JSON Lines (densekit.data.annotation_file).

        `require_tag` refuses an image without a `<image>` tag (the `plain` template of stage 1
        needs one). In an entry without image a tag inside a sentence is ordinary text, as in the
        official code; a tag that opens or ends a human turn is a lost image and refused. Raises
        DataError naming the file and the entry (line and column for broken JSON), and how many
        more entries are refused.
        """
        path = Path(path)
        data = read_file(path, limit=MAX_BYTES, remedy=REMEDY)
        entries = parse_entries(path, data)
        untagged = 0
        refused: list[tuple[int, str]] = []
        for index, entry in enumerate(entries):
            try:
                tagged, placeholder = _check_entry(entry)
                if "image" in entry and not tagged and require_tag:
                    raise DataError(
                        f"image without a {IMAGE_TOKEN} tag; add the tag to the human turn"
                    )
                if "image" not in entry and placeholder:
                    raise DataError(
                        f"tag without an image: a human turn opens or ends with {IMAGE_TOKEN} but "
                        "there is no 'image' "
                        "field; add the field, or take the tag out"
                    )
            except DataError as error:
                refused.append((index, str(error)))
                continue
            untagged += "image" in entry and not tagged
        if refused:
            index, problem = refused[0]
            raise DataError(f"{path}: entry {index}: {problem}{_others(refused[1:])}")
        return cls(path, entries, sha256=hashlib.sha256(data).hexdigest(), untagged_images=untagged)

    def take(self, places: Sequence[int]) -> "Annotations":
        """The entries at these indices of the file, in this order; each keeps its index."""
        return Annotations(
            self.path,
            [self._entries[place] for place in places],
            sha256=self.sha256,
            untagged_images=self.untagged_images,
            places=places,
        )

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return one sample, or the list of a slice."""
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(len(self)))]
        return self._sample(range(len(self))[index])

    def images(self) -> Iterator[tuple[int, str]]:
        """Yield (entry index, image path) for every entry with an image; cheaper than making the
        samples.
        """
        for index, entry in enumerate(self._entries):
            if (image := _image(entry)) is not None:
                yield index, image

    def _sample(self, index: int) -> Sample:
        place = index if self._places is None else self._places[index]
        return Sample(index=place, entry=self._entries[index])


def _image(entry: dict[str, Any]) -> str | None:
    """The image of a checked entry; some programs write a list of one."""
    image: str | list[str] | None = entry.get("image")
    return image[0] if isinstance(image, list) else image


def _others(refused: Sequence[tuple[int, str]]) -> str:
    """How many more entries are refused, and which."""
    if not refused:
        return ""
    named = ", ".join(str(index) for index, _ in refused[:NAMED])
    more = ", ..." if len(refused) > NAMED else ""
    entries = "entry is" if len(refused) == 1 else "entries are"
    return f" ({len(refused)} more {entries} refused: {named}{more})"


def _check_entry(entry: Any) -> tuple[bool, bool]:
    """Check the fields of one entry; return whether an image tag occurs, and whether one stands for
    an image.

    Raises DataError without the place.
    """
    if not isinstance(entry, dict):
        raise DataError(
            f"is a JSON {type(entry).__name__}; an object with 'conversations' is needed"
        )
    image = entry.get("image")
    if isinstance(image, list) and len(image) != 1:
        raise DataError(
            f"'image' is a list of {len(image)}; one image per sample is supported: split the "
            "entry, one image each"
        )
    if "image" in entry and not _names_a_file(image[0] if isinstance(image, list) else image):
        raise DataError(
            "'image' is not a file name; write a relative path, or leave the field out for text "
            "only"
        )
    if "video" in entry:
        raise DataError(
            "'video' is not supported (the official code cannot train on it either); remove the "
            "entry"
        )
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not turns:
        if "messages" in entry:
            raise DataError(
                "'messages' is another format (OpenAI's: role and content); write 'conversations', "
                'a list of {"from": "human" or "gpt", "value": text}'
            )
        raise DataError("no 'conversations'; give a list of turns, human first")

    tagged_turns = sum(_check_turn(number, turn) for number, turn in enumerate(turns))
    if tagged_turns > 1 and "image" in entry:
        raise DataError(
            f"{IMAGE_TOKEN} in {tagged_turns} turns but only one image; keep the tag in one turn"
        )
    # The official code drops a leading gpt turn (ShareGPT has them), so the count starts behind it.
    speakers = [turn["from"] for turn in turns]
    first = int(speakers[0] == "gpt")
    if first == len(speakers):
        raise DataError(
            "a single gpt turn, which is dropped as a leading one; add the human turn it answers"
        )
    for number, speaker in enumerate(speakers[first:], start=first):
        expected = "human" if (number - first) % 2 == 0 else "gpt"
        if speaker != expected:
            raise DataError(
                f"turn {number} is from {speaker!r} where {expected!r} is due; turns must alternate"
            )
    texts = [turn["value"].strip() for turn in turns if turn["from"] == "human"]
    placeholder = any(text.startswith(IMAGE_TOKEN) or text.endswith(IMAGE_TOKEN) for text in texts)
    return tagged_turns > 0, placeholder


def _names_a_file(image: object) -> bool:
    return isinstance(image, str) and bool(image) and "\0" not in image


def _check_turn(number: int, turn: Any) -> bool:
    """Check one turn and return whether it holds an image tag."""
    if isinstance(turn, dict) and "role" in turn and "from" not in turn:
        raise DataError(
            f"turn {number} has 'role' and 'content', as OpenAI's messages have; write 'from' "
            "('human' or 'gpt') and 'value'"
        )
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        raise DataError(f'turn {number} has no \'from\'; write "from": "human" or "gpt"')
    if not isinstance(turn.get("value"), str):
        raise DataError(f"turn {number} has no 'value'; write the text of the turn as a string")
    speaker = turn["from"]
    if speaker == "system":
        raise DataError(
            f"turn {number} is from 'system': the template has its system prompt; remove the turn, "
            "or put its text into the first human turn"
        )
    if speaker in SYNONYMS:
        raise DataError(f"turn {number} is from {speaker!r}; write {SYNONYMS[speaker]!r}")
    if speaker not in ("human", "gpt"):
        raise DataError(f"turn {number} is from {speaker[:40]!r}; only 'human' and 'gpt' are known")
    return IMAGE_TOKEN in turn["value"]
