"""What was found about each image file, kept while it is found, so that an interrupted examination
goes on where it stopped.

One JSON list a line: [path, *fields of a Picture]; `null` ends a full examination. Headers that
were read before count while size and time of the file are the same. Decoded pixels count only until
the examination they belong to is complete: the next one reads every byte again, for a disk may
change a file without its time.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from densekit.data.doctor.picture import Picture
from densekit.data.images import FileState
from densekit.files.hashing import json_sha256
from densekit.files.whole import written_whole

SCHEMA = 1
"""In the name of the file: a record of another schema is not read."""
BATCH = 256
"""Lines that are written at a time."""


class Record:
    """The record of one image folder."""

    def __init__(self, folder: Path, cache: Path | None) -> None:
        self._pictures: dict[str, Picture] = {}
        self._finished: set[str] = set()
        self._lines: list[str] = []
        self._path: Path | None = None
        if cache is not None:
            key = json_sha256([SCHEMA, os.path.realpath(folder)])[:32]
            self._path = cache / "doctor" / f"{key}.jsonl"
            self._read(self._path)

    def known(self, name: str, state: FileState, *, full: bool) -> Picture | None:
        """What is known of a file in this state."""
        found = self._pictures.get(name)
        if found is None or (found.size, found.mtime_ns) != (state.size, state.mtime_ns):
            return None
        if full and (found.sha256 is None or name in self._finished):
            return None
        return found

    def add(self, name: str, picture: Picture) -> None:
        """Keep what was found."""
        self._pictures[name] = picture
        self._finished.discard(name)
        self._lines.append(json.dumps([name, *picture.as_json()]))
        if len(self._lines) >= BATCH:
            self._write()

    def finish(self, pictures: Mapping[str, Picture]) -> None:
        """Say that a full examination is complete, and forget what is not of it."""
        if self._path is None:
            return
        self._lines.clear()
        lines = [json.dumps([name, *picture.as_json()]) for name, picture in pictures.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(self._path) as temporary:
                temporary.write_text("\n".join([*lines, "null", ""]), encoding="utf-8")
        except OSError as error:
            self._cannot_keep(error)

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what was not written yet."""
        if self._lines:
            self._write()

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                values = json.loads(line)
                if values is None:
                    self._finished = set(self._pictures)
                    continue
                self._pictures[str(values[0])] = Picture.from_json(values[1:])
                self._finished.discard(str(values[0]))
            except (ValueError, TypeError, IndexError, KeyError):
                continue  # a line that a kill cut off: the file is examined again

    def _write(self) -> None:
        text = "".join(f"{line}\n" for line in self._lines)
        self._lines.clear()
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self._cannot_keep(error)

    def _cannot_keep(self, error: OSError) -> None:
        print(f"{self._path}: not kept ({error.strerror})", file=sys.stderr)
        self._path = None
