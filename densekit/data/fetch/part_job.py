"""A part of a data set of the catalog: an archive to extract, one file, or files of the hub."""

import contextlib
import os
import re
from collections.abc import Hashable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from densekit.data.catalog import ARCHIVES, DataSet, FileObject, Kind, data_sets
from densekit.data.fetch.archives import (
    BrokenArchiveError,
    Extracted,
    extract,
    unpacked_bytes,
)
from densekit.data.fetch.hub import HubFile, Listing, copied_bytes, place
from densekit.data.fetch.job import Look, Sizes, Subject, Tools
from densekit.data.fetch.part_file import part_bytes
from densekit.data.fetch.progress import size_text
from densekit.data.fetch.records import REVISION, Record, Records
from densekit.data.fetch.remote import Digest, Remote
from densekit.errors import DataError
from densekit.files.disks import free_bytes
from densekit.files.hashing import file_sha256

HUB_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?/([^@\s]+)")
"""Repository, revision and file of an address on the hub."""

SUBJECT_OF: dict[Kind, Subject] = {
    "training": "data",
    "benchmark": "benchmarks",
    "trajectory": "trajectories",
}


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """One entry of a data set's `distribution`."""

    data_set: DataSet
    file: FileObject
    commit: str | None
    """Pinned commit of the repository that the part is in; None: the newest."""
    root: Path
    """The data root."""

    @property
    def label(self) -> str:
        """As `Job.label`."""
        return f"{self.data_set.name}: {self.file.name}"

    @property
    def subject(self) -> Subject:
        """As `Job.subject`."""
        return SUBJECT_OF[self.data_set.kind]

    @property
    def place(self) -> Path:
        """As `Job.place`."""
        folder = self.root / self.data_set.root / self.file.folder
        return folder if self._leaves_a_folder else folder / self.file.file_name

    @property
    def _leaves_a_folder(self) -> bool:
        file = self.file
        nameless = file.by_hand is not None and not Path(file.file_name).suffix
        return file.is_archive or bool(file.includes) or nameless

    @property
    def _records(self) -> Records:
        return Records(self.root)

    @property
    def _name(self) -> str:
        return f"{self.data_set.name}/{self.file.name}"

    @property
    def _archive(self) -> Path:
        """Where an archive waits for its extraction."""
        return self._records.waiting_place(self._name) / self.file.file_name

    def look(self, tools: Tools) -> Look:
        """As `Job.look`."""
        record = self._records.read(self._name)
        if record and record.state == "complete":
            if self._moved(record):
                return Look(state="missing", note=f"commit {record.commit} is there")
            if self._is_there(record):
                return Look(state="complete")
            return Look(state="missing", note="was fetched, and is not there as it was")
        if record is None and self._found():
            return Look(state="found")
        if self.file.by_hand and self._brought(tools) is None:
            return Look(state="by hand", note=self.file.by_hand)
        return Look(state="missing")

    def _moved(self, record: Record) -> bool:
        """Whether another commit is pinned than was fetched."""
        return record.commit is not None and self.commit not in (None, record.commit)

    def shared(self, tools: Tools) -> Hashable:
        """As `Job.shared`."""
        return None if self._brought(tools) is not None else self._same_archive

    @property
    def _same_archive(self) -> Hashable:
        """What parts have in common that are one archive, extracted alike; None for others."""
        if not self.file.is_archive or self.file.by_hand:
            return None
        return (self.root, self._origin, self.file.strip, self.commit)

    def _twin(self) -> tuple[Path, str | None] | None:
        """Where another data set has the same archive extracted, whose files are linked, and the
        commit.
        """
        if self._same_archive is None:
            return None
        for entry in data_sets():
            for file in entry.distribution:
                other = PartJob(data_set=entry, file=file, commit=self.commit, root=self.root)
                if other.label == self.label or other._same_archive != self._same_archive:
                    continue
                record = self._records.read(other._name)
                if record is None or record.state != "complete" or other._moved(record):
                    continue
                if other._is_there(record):
                    return other.place, record.commit
        return None

    def _is_there(self, record: Record) -> bool:
        """Whether what was fetched still is, as far as names, sizes and numbers say."""
        if record.files:
            base = self.place if self._leaves_a_folder else self.place.parent
            paths = [(base / name, size) for name, size in record.files.items()]
            return all(path.is_file() and path.stat().st_size == size for path, size in paths)
        return _holds(self.place, record.folder_files)

    def _found(self) -> bool:
        """Whether somebody else already put it here."""
        if not self._leaves_a_folder:
            return self.place.is_file()
        alone = not any(
            _overlap(self.file.folder, other.folder)
            for other in self.data_set.distribution
            if other.name != self.file.name and other.is_archive
        )
        return alone and self.file.folder != "." and _holds(self.place, self.file.file_count or 1)

    def sizes(self, tools: Tools) -> Sizes:
        """As `Job.sizes`."""
        published = None if self.file.bytes is None else int(self.file.bytes)
        if (brought := self._brought(tools)) is not None:
            if brought.is_dir() or not self._leaves_a_folder:
                return Sizes(download=0, stays=copied_bytes(brought, self.place))
            return Sizes(download=0, stays=unpacked_bytes(brought) or brought.stat().st_size)
        if self.file.includes:
            files = [
                file
                for file in self._included(self._listing(tools))
                if not _has(self.place / file.name, file.size)
            ]
            known = [file.size for file in files if file.size is not None]
            total = sum(known) if len(known) == len(files) else None
            return Sizes(download=total, stays=total)
        if self._twin() is not None:
            return Sizes(download=0, stays=0)
        size = tools.transfer.size(self._remote(tools))
        size = published if size is None else size
        if size is None:
            return Sizes(download=None, stays=None)
        archive = self._archive if self.file.is_archive else self.place
        left = 0 if archive.exists() else max(0, size - part_bytes(archive))
        if not self.file.is_archive:
            return Sizes(download=left, stays=left)
        extracted = _bytes_below(self.place) if self._records.read(self._name) else 0
        unpacked = unpacked_bytes(archive) if archive.exists() else size
        return Sizes(download=left, stays=max(0, (unpacked or size) - extracted), waits=left)

    def fetch(self, tools: Tools) -> None:
        """As `Job.fetch`."""
        origin = self.file.content_url or self.data_set.url
        self._records.write(self._name, Record(state="started", origin=origin))
        if self.file.includes:
            record = self._fetch_files(tools)
        elif self._leaves_a_folder:
            record = self._fetch_archive(tools)
        else:
            record = self._fetch_file(tools)
        self._records.write(self._name, record)

    def _fetch_file(self, tools: Tools) -> Record:
        """One file that is kept as it is."""
        brought = self._brought(tools)
        if brought is not None:
            self._check_brought(brought)
            place(brought.resolve(), self.place)
            return self._record_of_file(str(brought), None)
        remote = self._remote(tools)
        if not (remote.digest is not None and remote.is_whole(self.place)):
            cached = self._cached(tools)
            if cached is not None:
                place(cached, self.place)
            else:
                tools.transfer.download(
                    remote, self.place, tools.progress.task(self.label, remote.size)
                )
        commit = self._commit(tools)
        if commit and self.place.name == self.data_set.annotations:
            (self.place.parent / REVISION).write_text(f"{commit}\n", encoding="utf-8")
        return self._record_of_file(remote.url, commit)

    def _record_of_file(self, origin: str, commit: str | None) -> Record:
        size = self.place.stat().st_size
        return Record(
            state="complete",
            origin=origin,
            commit=commit,
            sha256=file_sha256(self.place),
            size=size,
            files={self.place.name: size},
        )

    def _fetch_files(self, tools: Tools) -> Record:
        """Files of a repository that match patterns."""
        listing = self._listing(tools)
        files = self._included(listing)
        for file in files:
            target, remote = self.place / file.name, tools.hub.remote(listing, file)
            if remote.digest is not None and remote.is_whole(target):
                continue
            if (cached := tools.hub.cached(listing, file)) is not None:
                place(cached, target)
            else:
                label = f"{self.label}: {file.name}"
                tools.transfer.download(remote, target, tools.progress.task(label, file.size))
        sizes = {file.name: (self.place / file.name).stat().st_size for file in files}
        return Record(state="complete", origin=listing.page, commit=listing.commit, files=sizes)

    def _fetch_archive(self, tools: Tools) -> Record:
        """An archive, from wherever it is, extracted."""
        brought = self._brought(tools)
        if brought is not None and brought.is_dir():
            return self._take_folder(brought)
        if brought is not None:
            self._check_brought(brought)
            try:
                extracted = self._extract(brought, tools)
            except BrokenArchiveError as error:
                raise DataError(f"{error}: bring it again") from None
            return self._record_of(brought, str(brought), None, extracted)
        if (twin := self._twin()) is not None:
            return self._take_folder(*twin)
        cached = self._cached(tools)
        if cached is not None:
            extracted = self._extract(cached, tools)
            return self._record_of(cached, self.data_set.url, self._commit(tools), extracted)
        remote = self._remote(tools)
        archive = self._archive
        for attempt in (1, 2):
            if not (archive.is_file() and (remote.digest is None or remote.is_whole(archive))):
                tell = tools.progress.task(self.label, remote.size)
                tools.transfer.download(remote, archive, tell)
            try:
                extracted = self._extract(archive, tools)
                break
            except BrokenArchiveError as error:
                archive.unlink()
                if attempt == 2:
                    raise DataError(
                        f"{remote.url}: {error}, after {attempt} downloads; see {remote.page}, and "
                        "bring the archive with --from DIR"
                    ) from None
                tools.progress.say(f"{error}: downloading it again")
        record = self._record_of(archive, remote.url, self._commit(tools), extracted)
        archive.unlink()
        with contextlib.suppress(OSError):
            archive.parent.rmdir()  # a wrong file that was kept stays
        return record

    def _extract(self, archive: Path, tools: Tools) -> Extracted:
        size = unpacked_bytes(archive)
        free = free_bytes(self.place)
        if size is not None and free < size and not self.place.exists():
            raise DataError(
                f"{archive} needs {size_text(size)} in {self.place} and {size_text(free)} are free:"
                " make room; the same command goes on"
            )
        tell = tools.progress.task(f"{self.label}: extracting", size)
        return extract(archive, self.place, strip=self.file.strip, tell=tell)

    def _record_of(
        self, archive: Path, origin: str, commit: str | None, extracted: Extracted
    ) -> Record:
        return Record(
            state="complete",
            origin=origin,
            commit=commit,
            sha256=file_sha256(archive),
            size=archive.stat().st_size,
            folder_files=extracted.files,
            folder_bytes=extracted.bytes,
        )

    def _take_folder(self, brought: Path, commit: str | None = None) -> Record:
        """A folder that was brought by hand or that another data set has, as it is."""
        count = size = 0
        for path in sorted(brought.rglob("*")):
            if path.is_file() and ".fetched" not in path.parts:
                place(path.resolve(), self.place / path.relative_to(brought))
                count, size = count + 1, size + path.stat().st_size
        if not count:
            raise DataError(f"{brought} holds no file: bring the files of {self.label} in it")
        return Record(
            state="complete",
            origin=str(brought),
            commit=commit,
            folder_files=count,
            folder_bytes=size,
        )

    def _check_brought(self, brought: Path) -> None:
        if self.file.sha256 is None:
            return
        digest = Digest(kind="sha256", value=self.file.sha256)
        if (found := digest.of(brought)) != digest.value:
            raise DataError(
                f"{brought} is not the published file: {digest.describe(found)}, the catalog has "
                f"{digest.value}; bring it again"
            )

    def _brought(self, tools: Tools) -> Path | None:
        """The file below --from. Raises DataError where its name does not say whose it is."""
        if tools.brought is None:
            return None
        name, base = self.file.file_name, tools.brought / self.data_set.name
        own = [base / self.file.name / name]
        if self._leaves_a_folder:
            own += [base / f"{self.file.name}{ending}" for ending in ARCHIVES]
        alike = [file for file in self.data_set.distribution if file.file_name == name]
        own += [base / name] if len(alike) == 1 else []
        found = next((path for path in own if path.is_file()), None)
        if found is not None:
            return found
        if self.file.by_hand and self._leaves_a_folder and (base / self.file.name).is_dir():
            return base / self.file.name
        loose = tools.brought / name
        if not loose.is_file():
            return None
        owners = {
            file.content_url or f"{entry.repository}/{file.name}": entry.name
            for entry in data_sets()
            for file in entry.distribution
            if file.file_name == name
        }
        if len(owners) > 1:
            raise DataError(
                f"{loose} may belong to {', '.join(owners.values())}: put it at {own[0]} for "
                f"{self.label}"
            )
        return loose

    @property
    def _origin(self) -> tuple[str | None, ...]:
        """What two parts have in common that are one file."""
        where = self._repository()
        return (where[0], where[2]) if where else (self.file.content_url,)

    def _repository(self) -> tuple[str, str | None, str] | None:
        """Repository, revision and file on the hub; None for other addresses."""
        if self.file.content_url is None:
            assert self.data_set.repository is not None, "the catalog was checked"
            return self.data_set.repository, self.commit, self.file.name
        found = HUB_URL.fullmatch(self.file.content_url)
        return (found[1], found[2] or self.commit, found[3]) if found else None

    def _listing(self, tools: Tools) -> Listing:
        where = self._repository()
        assert where is not None, "asked only for files of the hub"
        return tools.hub.listing(where[0], "dataset", where[1])

    def _included(self, listing: Listing) -> tuple[HubFile, ...]:
        patterns = self.file.includes
        files = tuple(
            file for file in listing.files if any(fnmatchcase(file.name, one) for one in patterns)
        )
        if not files:
            raise DataError(
                f"{listing.page} at commit {listing.commit} has no file like {', '.join(patterns)}"
            )
        return files

    def _hub_file(self, listing: Listing) -> HubFile:
        where = self._repository()
        assert where is not None, "asked only for files of the hub"
        file = next((file for file in listing.files if file.name == where[2]), None)
        if file is None:
            raise DataError(f"{listing.page} at commit {listing.commit} has no file {where[2]}")
        return file

    def _commit(self, tools: Tools) -> str | None:
        return self._listing(tools).commit if self._repository() else None

    def _cached(self, tools: Tools) -> Path | None:
        """The file in the hub's cache."""
        if self._repository() is None:
            return None
        listing = self._listing(tools)
        return tools.hub.cached(listing, self._hub_file(listing))

    def _remote(self, tools: Tools) -> Remote:
        said = Digest(kind="sha256", value=self.file.sha256) if self.file.sha256 else None
        if self._repository() is None:
            assert self.file.content_url is not None, "the catalog was checked"
            return Remote(url=self.file.content_url, page=self.data_set.url, digest=said)
        listing = self._listing(tools)
        file = self._hub_file(listing)
        remote = tools.hub.remote(listing, file)
        return Remote(
            url=remote.url,
            page=remote.page,
            headers=remote.headers,
            size=remote.size,
            digest=said or remote.digest,
        )


def _overlap(one: str, other: str) -> bool:
    """Whether one folder is the other or inside it."""
    a, b = Path(one).parts, Path(other).parts
    return a[: len(b)] == b or b[: len(a)] == a


def _holds(folder: Path, files: int) -> bool:
    """Whether a folder has at least so many files."""
    count = 0
    for _, _, names in os.walk(folder, followlinks=True):
        count += sum(not name.endswith(".extracting") for name in names)
        if count >= max(files, 1):
            return True
    return False


def _has(path: Path, size: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size


def _bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
