"""Where the images of an annotation file are: what a folder's listing has instead of one that is
missing, and which files lie there besides.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from densekit.data.images import Listing

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
"""Extensions under which a missing image may be there."""
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".incomplete", ".tmp")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


class Tree:
    """The folders that images are named in, each listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listing = Listing(folder)
        self._names: dict[str, set[str] | None] = {}
        self._folded: dict[str, dict[str, str]] = {}
        self._absent: dict[str, tuple[str, str]] = {}

    def why_missing(self, name: str) -> tuple[str, str]:
        """The kind of finding for an image that is no regular file, and a detail."""
        if "://" in name[:12]:
            return "image_address", ""
        path = self.folder / name
        try:
            state = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._near(name)
        except PermissionError:
            return "image_folder_closed", f"{path.parent}: no permission"
        except OSError as error:
            return "image_path", error.strerror or str(error)
        except ValueError:  # a JSON escape can spell it, a file system cannot
            return "image_path", "half of a surrogate pair in its name"
        if stat.S_ISLNK(state.st_mode):
            try:
                state = path.stat()
            except OSError:
                return "broken_link", f"to {path.readlink()}"
        if stat.S_ISDIR(state.st_mode):
            return "folder_for_file", ""
        if stat.S_ISREG(state.st_mode):  # it came after the listing, or its folder has no listing
            return "image_folder_closed", f"{path.parent} cannot be listed"
        return "special_file", ""

    def other_files(self, directory: str) -> Iterator[tuple[str, str]]:
        """(kind, detail) of what a listed folder holds that is odd in itself."""
        names = self._listed(directory) or set()
        folded: dict[str, str] = {}
        for name in sorted(names):
            if name.lower().endswith(UNFINISHED):
                yield "left_over", name
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                yield "case_collision", f"{other} and {name}"

    def file_count(self, directory: str) -> int | None:
        """Names in a folder without the hidden ones; None where it cannot be listed."""
        names = self._listed(directory)
        return None if names is None else sum(not name.startswith(".") for name in names)

    def files_below(self, directory: str) -> int | None:
        """Files in a folder and in the folders in it, without the hidden ones; None where there is
        no such folder.
        """
        if not (self.folder / directory).is_dir():
            return None
        return sum(
            sum(not name.startswith(".") for name in names)
            for _, _, names in os.walk(self.folder / directory)
        )

    def stands_in(self, name: str, extensions: tuple[str, ...] = PICTURES) -> str | None:
        """The name of a file that differs from a missing one in its extension only."""
        directory, file = _split(name)
        names = self._listed(directory) or set()
        stem = PurePosixPath(file).stem
        return next(
            (
                f"{directory}/{stem}{extension}".lstrip("/") if directory else f"{stem}{extension}"
                for extension in extensions
                if f"{stem}{extension}" in names
            ),
            None,
        )

    def _near(self, name: str) -> tuple[str, str]:
        """What is there in the place of a file that is not."""
        directory, file = _split(name)
        names = self._listed(directory)
        if "\\" in name:
            there = (self.folder / name.replace("\\", "/")).is_file()
            return "windows_path", "the file is there with `/`" if there else ""
        if names is None:
            if directory not in self._absent:
                self._absent[directory] = self._no_folder(directory)
            return self._absent[directory]
        folded = self._folded_names(directory, names)
        if (other := folded.get(_nfc(file).casefold())) is not None:
            same_case = _nfc(other) == _nfc(file)
            return ("unicode_form" if same_case else "letter_case"), other
        if (other := self.stands_in(name)) is not None:
            return "other_extension", PurePosixPath(other).name
        inner = f"{directory}/{PurePosixPath(directory or '.').name}".strip("/")
        if directory and file in (self._listed(inner) or ()):
            return "nested_folder", inner
        return "missing_image", ""

    def _no_folder(self, directory: str) -> tuple[str, str]:
        parts = PurePosixPath(directory).parts
        for count in range(len(parts) + 1):
            place = self.folder.joinpath(*parts[:count])
            if place.is_dir():
                continue
            if place.exists():
                return "image_folder", f"{place} is a file"
            if count == 0:
                return "image_folder", f"{place}"
            for ending in ARCHIVES:
                archive = place.with_name(place.name + ending)
                if archive.is_file():
                    return "image_folder", f"{place}: {archive} is there: unpack it"
            siblings = self._listed("/".join(parts[: count - 1])) or set()
            other = next(
                (one for one in siblings if one.casefold() == parts[count - 1].casefold()), ""
            )
            return "image_folder", f"{place}" + (f": there is {other}" if other else "")
        return "image_folder_closed", f"{self.folder / directory} cannot be listed"

    def _listed(self, directory: str) -> set[str] | None:
        if directory not in self._names:
            try:
                self._names[directory] = {
                    entry.name for entry in (self.folder / directory).iterdir()
                }
            except (OSError, ValueError):
                self._names[directory] = None
        return self._names[directory]

    def _folded_names(self, directory: str, names: set[str]) -> dict[str, str]:
        if directory not in self._folded:
            self._folded[directory] = {_nfc(name).casefold(): name for name in names}
        return self._folded[directory]


def _split(name: str) -> tuple[str, str]:
    directory, _, file = name.rpartition("/")
    return ("/" if name.startswith("/") and not directory else directory), file


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
