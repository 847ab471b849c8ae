"""Which images of an annotation file are missing or cannot be used, found by listing folders and by
reading each file's header once.

What was read is kept in the cache with the file's size and time of last change; later only folders
are listed.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from densekit.data.annotations import Annotations
from densekit.data.decoding import examine
from densekit.errors import DataError
from densekit.files.arrays import keep_arrays
from densekit.files.hashing import json_sha256

# Goes up when the meaning of a stored array changes: files of another schema are read anew.
SCHEMA = 1
THREADS = 16
"""Files whose headers are read at a time: they wait for the disk, not for the processor."""
PROGRESS_EVERY = 20_000
UNREAD, GOOD, DEEP = 0, 1, 2


class FileState(NamedTuple):
    """What a folder's listing says of a file."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An entry whose image cannot be used."""

    index: int
    """Of the entry."""
    image: str
    """As the entry names it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Images:
    """What was found about the images of an annotation file."""

    folder: Path
    bad: tuple[BadImage, ...]
    """In the order of the entries."""
    deep: tuple[int, ...]
    """Entries whose image has more than 8 bits a channel."""
    outside: tuple[Path, ...]
    """Folders that images are in, seen by themselves or through a link, and that are not below
    `folder`.
    """


def find_images(annotations: Annotations, folder: Path, cache: Path | None = None) -> Images:
    """Look at every image of an annotation file.

    `cache`: root of the cache; None reads every header again and keeps nothing. Contents behind the
    header are not decoded.
    """
    entries = list(annotations.images())
    names = list(dict.fromkeys(image for _, image in entries))
    listing = Listing(folder)
    states = [listing.state(name) for name in names]
    known = np.empty((len(names), 2), dtype=np.int64)
    for column in range(2):
        values = (-1 if state is None else state[column] for state in states)
        known[:, column] = np.fromiter(values, np.int64, len(names))
    kept = _kept_at(annotations, folder, cache)
    found = _remembered(kept, known)
    unread = [int(place) for place in np.flatnonzero(found == UNREAD) if known[place, 0] > 0]
    reasons = _read(folder, names, unread, found)
    if kept is not None and unread:
        _keep(kept, known, found)
    # Few, so that the hundred thousands that are good cost nothing.
    bad = {names[place]: f"cannot be read ({reason})" for place, reason in reasons.items()}
    for size, reason in ((-1, "does not exist"), (0, "is empty (0 bytes)")):
        bad |= {names[place]: reason for place in np.flatnonzero(known[:, 0] == size)}
    deep = {names[place] for place in np.flatnonzero(found == DEEP)} - bad.keys()
    return Images(
        folder=folder,
        bad=tuple(
            BadImage(index=index, image=image, reason=bad[image])
            for index, image in entries
            if image in bad
        ),
        deep=tuple(index for index, image in entries if image in deep),
        outside=tuple(sorted(listing.outside)),
    )


class Listing:
    """Files of an image folder: one listing a folder, whatever the number of images in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = os.path.realpath(folder)
        self._folders: dict[str, Mapping[str, FileState]] = {}
        self.outside: set[Path] = set()

    def state(self, name: str) -> FileState | None:
        """Size and time of a regular file; None where there is none."""
        # Plain string work: building a Path for each of 665,000 entries would take seconds.
        directory, _, file = name.rpartition("/")
        if directory == "" and name.startswith("/"):
            directory = "/"
        if directory not in self._folders:
            self._folders[directory] = self._listed(directory)
        return self._folders[directory].get(file)

    def _listed(self, directory: str) -> Mapping[str, FileState]:
        files: dict[str, FileState] = {}
        path = self._folder / directory
        try:
            self._note(os.path.realpath(path))
            with os.scandir(path) as entries:
                for entry in entries:
                    self._add(entry, files)
        except (OSError, ValueError):  # not there, not readable, or no path at all
            pass
        return files

    def _add(self, entry: os.DirEntry[str], files: dict[str, FileState]) -> None:
        try:
            if not entry.is_file():
                return
            state = entry.stat()
        except OSError:  # a link to itself, or the file went: the others are there
            return
        files[entry.name] = FileState(state.st_size, state.st_mtime_ns)
        if entry.is_symlink():
            self._note(os.path.realpath(entry.path).rpartition("/")[0])

    def _note(self, real: str) -> None:
        if real != self._real and not real.startswith(self._real.rstrip("/") + "/"):
            self.outside.add(Path(real))


def _read(
    folder: Path, names: Sequence[str], places: Sequence[int], found: npt.NDArray[np.uint8]
) -> dict[int, str]:
    """Read the headers of the images at `places`; fills `found`, returns what is wrong by place."""

    def header(place: int) -> int | str:
        try:
            return DEEP if examine(folder / names[place]) else GOOD
        except DataError as error:
            return str(error)

    reasons: dict[int, str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        results: Iterable[int | str] = pool.map(header, places)
        for number, (place, result) in enumerate(zip(places, results, strict=True), start=1):
            if isinstance(result, int):
                found[place] = result
            else:
                reasons[place] = result
            if number % PROGRESS_EVERY == 0:
                line = f"{folder}: read the headers of {number} of {len(places)} images"
                print(line, file=sys.stderr)
    return reasons


def _kept_at(annotations: Annotations, folder: Path, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    key = json_sha256([annotations.sha256, os.path.realpath(folder)])
    return cache / "images" / f"{key}.npz"


def _remembered(path: Path | None, known: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """What was found before about images that have the same size and time since, UNREAD for the
    others.
    """
    fresh = np.zeros(len(known), dtype=np.uint8)
    if path is None or not path.is_file():
        return fresh
    try:
        with np.load(path, allow_pickle=False) as arrays:
            schema, then, found = arrays["schema"], arrays["known"], arrays["found"]
        if schema != SCHEMA or then.shape != known.shape or found.shape != fresh.shape:
            return fresh
        return np.where((then == known).all(axis=1), found, fresh).astype(np.uint8)
    except Exception as error:  # numpy and zipfile raise half a dozen kinds; it can be read again
        print(f"{path}: damaged ({error}); the images are read again", file=sys.stderr)
        return fresh


def _keep(path: Path, known: npt.NDArray[np.int64], found: npt.NDArray[np.uint8]) -> None:
    try:
        keep_arrays(path, schema=SCHEMA, known=known, found=found)
    except OSError as error:
        print(f"{path}: not kept ({error.strerror}); images are read again", file=sys.stderr)
