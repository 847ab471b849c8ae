"""A model of the hub, as a folder of real files below the models' root."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from densekit.data.fetch.hub import HubFile, Listing, copied_bytes, model_files, place
from densekit.data.fetch.job import Look, Sizes, Subject, Tools
from densekit.data.fetch.part_file import part_bytes
from densekit.data.fetch.records import REVISION, Record, Records
from densekit.errors import DataError
from densekit.files.pickle_files import CONVERSION, has_pickled_weights
from densekit.files.weight_files import few, read_weight_files
from densekit.spec.conversion import read_conversion

AT_ONCE = 4
"""Files of one model that are fetched at the same time."""


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """One repository."""

    repository: str
    commit: str | None
    """The pinned commit; None: the newest."""
    root: Path
    """The models' root."""
    subject: Subject = "models"

    @property
    def label(self) -> str:
        """As `Job.label`."""
        return self.repository

    @property
    def place(self) -> Path:
        """As `Job.place`."""
        return self.root / self.repository

    @property
    def _records(self) -> Records:
        return Records(self.root)

    @property
    def needs_conversion(self) -> bool:
        """Whether its weights are there as pickles alone, or their conversion was killed."""
        return has_pickled_weights(self.place) and bool(read_weight_files(self.place)[1])

    def look(self, tools: Tools) -> Look:
        """As `Job.look`."""
        del tools
        record = self._records.read(self.repository)
        if record is None:
            whole = (self.place / "config.json").is_file() and not read_weight_files(self.place)[1]
            return Look(state="found" if whole else "missing")
        # Pickles may be removed once they were converted.
        converted = not (self.needs_conversion or read_weight_files(self.place)[1])
        lacking = [
            name
            for name, size in record.files.items()
            if not self._has(name, size) and not (converted and name.endswith(".bin"))
        ]
        if record.state == "started" or lacking:
            return Look(state="missing", note=f"{few(lacking)} to come" if lacking else "")
        if self.commit not in (None, record.commit):
            return Look(state="missing", note=f"commit {record.commit} is there")
        return Look(state="complete", note=f"commit {record.commit}" if record.commit else "")

    def shared(self, tools: Tools) -> None:
        """As `Job.shared`: no model is another's."""
        del tools

    def sizes(self, tools: Tools) -> Sizes:
        """As `Job.sizes`."""
        if (brought := self._brought(tools)) is not None:
            files = model_files(_files_of(brought))
            copied = sum(copied_bytes(brought / file.name, self.place) for file in files)
            return Sizes(download=0, stays=copied + _pickled_bytes(files))
        listing = self._listing(tools)
        missing = [
            file for file in model_files(listing.files) if not self._has(file.name, file.size)
        ]
        left: list[int | None] = []
        copied = 0
        for file in missing:
            if (cached := tools.hub.in_cache(listing, file)) is not None:
                copied += copied_bytes(cached, self.place)
            else:
                here = part_bytes(self.place / file.name)
                left.append(None if file.size is None else file.size - here)
        download = sum(size or 0 for size in left)
        stays = download + copied + _pickled_bytes(missing)
        return Sizes(download=None if None in left else download, stays=stays)

    def fetch(self, tools: Tools) -> None:
        """As `Job.fetch`."""
        brought = self._brought(tools)
        if brought:
            self._bring(brought)
            return
        listing = self._listing(tools)
        files = model_files(listing.files)
        earlier = self._records.read(self.repository)
        self._write_record(listing.page, listing.commit, files, started=True)
        tasks = [
            functools.partial(self._get, listing, file, tools, earlier is not None)
            for file in files
        ]
        _all_of(tasks, tools)
        self._drop_others(earlier, files, listing.commit)
        self._finish(listing.page, listing.commit, files)

    def _get(self, listing: Listing, file: HubFile, tools: Tools, ours: bool) -> None:
        """One file: what is there whole stays, the hub's cache comes before the network."""
        target = self.place / file.name
        remote = tools.hub.remote(listing, file)
        if target.exists():
            known = file.size is not None or file.digest is not None
            if known and remote.is_whole(target):
                return
            if not ours:
                raise DataError(
                    f"{target} is not {listing.repository}'s at commit {listing.commit}, and not "
                    "from a fetch: move the folder away, or use it as it is (without fetching)"
                )
        if (cached := tools.hub.cached(listing, file)) is not None:
            place(cached, target)
            return
        if listing.snapshot:
            raise DataError(f"{listing.repository}: the hub's cache lacks {file.name}")
        tell = tools.progress.task(f"{self.repository}: {file.name}", file.size)
        tools.transfer.download(remote, target, tell)

    def _bring(self, brought: Path) -> None:
        """Take a folder that was brought by hand."""
        files = model_files(_files_of(brought))
        commit = None
        with contextlib.suppress(OSError):
            commit = (brought / REVISION).read_text(encoding="utf-8").strip() or None
        if self.commit and commit and commit != self.commit:
            raise DataError(
                f"{brought} is of commit {commit}, and {self.commit} is pinned: bring that one, or "
                f"pin {commit} in recipes/revisions.yaml"
            )
        self._write_record(str(brought), commit, files, started=True)
        for file in files:
            place((brought / file.name).resolve(), self.place / file.name)
        self._finish(str(brought), commit, files)

    def _finish(self, origin: str, commit: str | None, files: Sequence[HubFile]) -> None:
        if not any(file.name.endswith(".bin") for file in files):
            problems = read_weight_files(self.place)[1]
            if not (self.place / "config.json").is_file():
                problems.append(f"{self.place} lacks config.json")
            if problems:
                raise DataError(
                    f"{self.repository}: {'; '.join(problems)}: {origin} itself is not complete"
                )
        if commit:
            (self.place / REVISION).write_text(f"{commit}\n", encoding="utf-8")
        self._write_record(origin, commit, files, started=False)

    def _write_record(
        self, origin: str, commit: str | None, files: Sequence[HubFile], *, started: bool
    ) -> None:
        sizes = {}
        for file in files:
            path = self.place / file.name
            sizes[file.name] = path.stat().st_size if path.is_file() else file.size or 0
        record = Record(
            state="started" if started else "complete", origin=origin, commit=commit, files=sizes
        )
        self._records.write(self.repository, record)

    def _drop_others(
        self, earlier: Record | None, files: Sequence[HubFile], commit: str | None
    ) -> None:
        """Remove files of an earlier commit, which a model of several files would be read with, and
        what was converted from them.
        """
        if earlier is None:
            return
        wanted = {file.name for file in files}
        others = {name for name in earlier.files if "/" not in name}
        if earlier.commit != commit and (conversion := read_conversion(self.place)) is not None:
            others |= {*conversion.files, CONVERSION}
        for name in others - wanted:
            (self.place / name).unlink(missing_ok=True)

    def _has(self, name: str, size: int | None) -> bool:
        path = self.place / name
        return path.is_file() and size in (None, path.stat().st_size)

    def _brought(self, tools: Tools) -> Path | None:
        """Its folder below --from."""
        if tools.brought is None:
            return None
        short = self.repository.rpartition("/")[2]
        places = [tools.brought / self.repository, tools.brought / short]
        return next((place for place in places if (place / "config.json").is_file()), None)

    def _listing(self, tools: Tools) -> Listing:
        return tools.hub.listing(self.repository, "model", self.commit)


def _files_of(folder: Path) -> list[HubFile]:
    """What is in a folder that was brought by hand, as the hub would list it."""
    return [
        HubFile(name=path.name, size=path.stat().st_size, digest=None)
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]


def _pickled_bytes(files: Sequence[HubFile]) -> int:
    """Bytes of the safetensors that are made of pickles, which stay beside them."""
    return sum(file.size or 0 for file in files if file.name.endswith(".bin"))


def _all_of(tasks: Sequence[Callable[[], None]], tools: Tools) -> None:
    """Run all, a few at a time; the first error ends the others at their next chunk."""
    stop = tools.transfer.stop
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception() is not None]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            stop.clear()
    for future in failed or futures:
        future.result()
