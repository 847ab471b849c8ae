"""The pass over the images: where each is, and what is in it."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.data.doctor.findings import Findings
from densekit.data.doctor.kinds import KINDS
from densekit.data.doctor.picture import Picture, look
from densekit.data.doctor.pool import Job
from densekit.data.doctor.record import Record
from densekit.data.doctor.tree import Tree
from densekit.data.images import FileState
from densekit.spec.types import Semantics

REPEATED = 10
"""Names under which the same bytes are odd."""
Item = tuple[str, FileState, bool]
"""(path, state, whether it is decoded)."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What the pass found besides findings."""

    pictures: dict[str, Picture]
    """By path, of the images that are there."""
    missing: tuple[str, ...]
    """Images that are not."""
    again: int
    """Files that were known from an earlier examination and not read again."""


def pick_sample(names: Iterable[str], size: int, seed: int) -> frozenset[str]:
    """So many of the names, drawn from the seed; all where there are fewer."""
    ordered = sorted(names)
    return frozenset(random.Random(seed).sample(ordered, min(size, len(ordered))))


def examine_files(
    tree: Tree, names: Sequence[str], decoded: frozenset[str], record: Record, *, workers: int
) -> Files:
    """Look at the header of every image, and at every pixel of those in `decoded`."""
    pictures: dict[str, Picture] = {}
    missing: list[str] = []
    unread: list[Item] = []
    for name in names:
        state = tree.listing.state(name)
        if state is None:
            missing.append(name)
        elif (known := record.known(name, state, full=name in decoded)) is not None:
            pictures[name] = known
        else:
            unread.append((name, state, name in decoded))
    again = len(pictures)
    what = f"{tree.folder}: images examined"
    with record:
        job: Job[Item, Picture] = Job(make=_looker, arguments=(tree.folder,), what=what)
        for (name, state, _), found in job.run(unread, workers):
            if found is None:
                crashed = (("decoder_crash", ""),)
                found = Picture(
                    size=state.size, mtime_ns=state.mtime_ns, decodes=False, odd=crashed
                )
            pictures[name] = found
            record.add(name, found)
    return Files(pictures=pictures, missing=tuple(missing), again=again)


def report_files(
    files: Files,
    entries: Mapping[str, Sequence[int]],
    tree: Tree,
    findings: Findings,
    *,
    semantics: Semantics,
) -> frozenset[str]:
    """Turn what was found into findings; returns the images that cannot be used. `entries`: those
    that name each image.
    """
    unusable = set(files.missing)
    for name in files.missing:
        kind, detail = tree.why_missing(name)
        findings.add(kind, _place(name, entries), detail)
    same: dict[str, list[str]] = {}
    for name in entries:
        picture = files.pictures.get(name)
        if picture is None:
            continue
        for kind, detail in picture.odd:
            kept = "deep_refused" if kind == "deep" and semantics == "fixed" else kind
            findings.add(kept, _place(name, entries), detail)
            if KINDS[kept].image:
                unusable.add(name)
        if picture.sha256 is not None:
            same.setdefault(picture.sha256, []).append(name)
    for names in same.values():
        if len(names) >= REPEATED:
            findings.add("repeated_image", names[0], f"{len(names)} names, e.g. {names[1]}")
    for folder in sorted({name.rpartition("/")[0] for name in entries}):
        for kind, detail in tree.other_files(folder):
            findings.add(kind, folder or ".", detail)
    for outside in sorted(tree.listing.outside):
        findings.add("outside", str(outside))
    return frozenset(unusable)


def _place(name: str, entries: Mapping[str, Sequence[int]]) -> str:
    """An image and the entries that name it."""
    places = entries[name]
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{name} (entry {places[0]}{more})"


def _looker(folder: Path) -> Callable[[Item], Picture]:
    def looked(item: Item) -> Picture:
        name, state, full = item
        return look(folder / name, size=state.size, mtime_ns=state.mtime_ns, full=full)

    return looked
