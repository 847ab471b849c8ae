"""The repairs that the catalog records: a missing image that is there under another extension or in
another folder gets a copy of the name that the annotations use. Nothing is removed or overwritten.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from densekit.data.catalog import DataSet, Repair
from densekit.data.doctor.tree import Tree
from densekit.files.whole import written_whole


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """One repair that was made, or that could not be made."""

    name: str
    """The image, as the annotations name it."""
    source: str
    """The file it is a copy of."""
    failed: str | None = None
    """Why it could not be copied."""

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {"image": self.name, "copy_of": self.source, "failed": self.failed}


def repair(data_set: DataSet | None, missing: Iterable[str], tree: Tree) -> list[Repaired]:
    """Make the recorded repairs of a data set for images that are missing."""
    if data_set is None:
        return []
    repaired = []
    for recorded in data_set.repairs:
        if recorded.action == "link" and (linked := _link_folder(recorded, tree.folder)):
            repaired.append(linked)
    for name in missing:
        if ".." in name.split("/") or name.startswith("/") or (tree.folder / name).is_file():
            continue
        for recorded in data_set.repairs:
            if fnmatchcase(name, recorded.files) and (source := _source(recorded, name, tree)):
                repaired.append(_copy(name, source, tree.folder))
                break
    return repaired


def _link_folder(recorded: Repair, folder: Path) -> Repaired | None:
    """Link a whole folder that is not there to the one that has its files."""
    name = recorded.files.partition("*")[0].rstrip("/")
    target = folder / name
    source = next((other for other in recorded.instead if (folder / other).is_dir()), None)
    if not name or source is None or os.path.lexists(target):
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(folder / source, target.parent))
    except OSError as error:
        return Repaired(name=name, source=source, failed=error.strerror or str(error))
    return Repaired(name=name, source=source)


def _source(recorded: Repair, name: str, tree: Tree) -> str | None:
    """The file that a repair says stands for a missing one, where it is there."""
    if recorded.action == "rename":
        return tree.stands_in(name, recorded.instead)
    if recorded.action == "link":
        start = recorded.files.partition("*")[0]
        for other in recorded.instead:
            candidate = f"{other.rstrip('/')}/{name.removeprefix(start)}"
            if (tree.folder / candidate).is_file():
                return candidate
    return None


def _copy(name: str, source: str, folder: Path) -> Repaired:
    """A second name of the same bytes, where the disk has such, else a copy; never over a file."""
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / source, target)
        except FileExistsError:
            raise
        except OSError:
            with written_whole(target) as temporary:
                shutil.copyfile(folder / source, temporary)
                if os.path.lexists(target):
                    raise FileExistsError from None
    except FileExistsError:
        return Repaired(name=name, source=source, failed="there is a file by that name")
    except OSError as error:
        return Repaired(name=name, source=source, failed=error.strerror or str(error))
    return Repaired(name=name, source=source)
