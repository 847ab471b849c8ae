"""All jobs of a fetch: what is there, what it takes, whether there is room, then one after the
other; one that fails does not keep the others from coming.
"""

import errno
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from densekit.data.fetch.job import Job, Look, Sizes, Tools
from densekit.data.fetch.progress import size_text
from densekit.data.fetch.records import Records
from densekit.errors import DataError, DensekitError
from densekit.files.disks import disk, free_bytes


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found about every job before anything is written."""

    looks: tuple[tuple[Job, Look], ...]
    sizes: dict[str, Sizes]
    """By label; of those that are missing and can be had."""
    refused: dict[str, str]
    """By label: why it cannot be had, in a sentence that begins with the label."""

    @property
    def missing(self) -> list[Job]:
        """What is to be fetched."""
        return [job for job, look in self.looks if look.state == "missing"]

    @property
    def by_hand(self) -> list[str]:
        """What only a person can get, and how, in sentences."""
        return [
            f"{job.label} is to be brought by hand: {look.note}"
            for job, look in self.looks
            if look.state == "by hand"
        ]

    def lines(self) -> list[str]:
        """A line per job, then what comes and what room it takes. Why a job is refused, or what a
        person has to do, is said in the end.
        """
        lines = []
        for job, look in self.looks:
            text = look.note if look.state == "complete" else ""
            sizes = self.sizes.get(job.label)
            if sizes is not None:
                text = "size not published" if sizes.stays is None else size_text(sizes.stays)
                text += f" ({look.note})" if look.note else ""
            state = "refused" if job.label in self.refused else look.state
            lines.append(f"{state:9} {job.label}  {text}".rstrip())
        coming = [self.sizes[job.label] for job in self.missing if job.label in self.sizes]
        if coming:
            known = sum(sizes.download or 0 for sizes in coming)
            more = " and what has no published size" if _any_unknown(coming) else ""
            lines.append(f"to download: {size_text(known)}{more}")
        return lines

    def room(self) -> list[str]:
        """A line per disk: what is needed and what is free. Raises DataError where it is too
        little.
        """
        disks: dict[int, list[Job]] = {}
        for job in self.missing:
            if job.label in self.sizes:
                disks.setdefault(disk(job.place), []).append(job)
        lines = []
        for jobs in disks.values():
            sizes = [self.sizes[job.label] for job in jobs]
            # Archives are extracted one after the other, and removed when that is done.
            needed = sum(one.stays or 0 for one in sizes) + max(one.waits for one in sizes)
            free = free_bytes(jobs[0].place)
            roots = ", ".join(dict.fromkeys(str(job.root) for job in jobs))
            line = f"{size_text(needed)} needed in {roots}, {size_text(free)} free"
            if free < needed:
                problem = (
                    f"{line}: make room, give another folder with --to DIR, or fetch less at a time"
                    " (--only, --part); nothing was downloaded"
                )
                raise DataError("\n".join([problem, *self.refused.values()]))
            lines.append(line)
        return lines


def survey(jobs: Sequence[Job], tools: Tools) -> Survey:
    """Look at every job, and ask the publishers of those that are missing."""
    looks = tuple((job, job.look(tools)) for job in jobs)
    sizes: dict[str, Sizes] = {}
    refused: dict[str, str] = {}
    coming: set[Hashable] = set()
    for job, look in looks:
        if look.state != "missing":
            continue
        try:
            shared = job.shared(tools)
            linked = shared is not None and shared in coming
            sizes[job.label] = Sizes(download=0, stays=0) if linked else job.sizes(tools)
            coming.add(shared)
        except DensekitError as error:
            refused[job.label] = _of(job, error)
    return Survey(looks=looks, sizes=sizes, refused=refused)


def fetch_missing(found: Survey, tools: Tools, say: Callable[[str], None]) -> list[str]:
    """Fetch everything that is missing and can be had; returns why the rest of it did not come.

    Raises DataError where the disk takes nothing more.
    """
    problems = list(found.refused.values())
    roots = dict.fromkeys(job.root for job in found.missing)
    with ExitStack() as locks:
        for root in roots:
            try:
                locks.enter_context(Records(root).locked())
            except OSError as error:
                raise _disk_error(error, root) from None
        for job in found.missing:
            if job.label in found.refused:
                continue
            try:
                job.fetch(tools)
                say(f"fetched   {job.label} to {job.place}")
            except DensekitError as error:
                problems.append(_of(job, error))
            except OSError as error:
                raise _disk_error(error, job.place) from None
    return problems


def _of(job: Job, error: DensekitError) -> str:
    """An error that says which job it is about."""
    text = str(error)
    return text if text.startswith(job.label) else f"{job.label}: {text}"


def _disk_error(error: OSError, place: Path) -> DataError:
    """What the system refused, and what to do."""
    kept = "what was fetched is kept, and the same command goes on"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = size_text(free_bytes(place))
        return DataError(f"{place}: the disk is full ({free} free): make room; {kept}")
    reason = f"{error.filename or place} cannot be written: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DataError(
            f"{reason}: give a folder of your own with --to DIR (or --data-dir and --models-dir)"
        )
    return DataError(f"{reason}; {kept}")


def _any_unknown(sizes: Sequence[Sizes]) -> bool:
    return any(one.download is None or one.stays is None for one in sizes)
