"""What an annotation file is made of, folder by folder, beside what the catalog says of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densekit.data.catalog import DataSet
from densekit.data.doctor.conversations import Entries
from densekit.data.doctor.findings import Findings
from densekit.data.doctor.tree import Tree

MOST = 40
"""Folders that are listed; with more, they are counted by their first parts."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One folder of images."""

    name: str
    """Of the images, as the entries name them; "" for the image folder itself."""
    entries: int
    """That name an image in it."""
    images: int
    """Different images they name."""
    files: int | None
    """In the folder; None where it cannot be listed or stands for several."""

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "folder": self.name,
            "entries": self.entries,
            "images": self.images,
            "files": self.files,
        }


def composition(images: Mapping[str, Sequence[int]], tree: Tree) -> tuple[Folder, ...]:
    """The folders of the images that entries name, by name."""
    entries: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for name, places in images.items():
        folder = name.rpartition("/")[0]
        entries[folder] += len(places)
        names[folder] += 1
    depth: int | None = None
    while len(entries) > MOST and depth != 0:
        depth = 2 if depth is None else depth - 1
        entries, names = _joined(entries, depth), _joined(names, depth)
    return tuple(
        Folder(
            name=folder,
            entries=entries[folder],
            images=names[folder],
            files=tree.file_count(folder) if depth is None else None,
        )
        for folder in sorted(entries)
    )


def compare_counts(
    data_set: DataSet | None, samples: int | None, entries: Entries, tree: Tree, findings: Findings
) -> None:
    """Counts against the catalog, and against what a recipe expects (`samples`)."""
    published = data_set.entries if data_set else None
    expected = samples or (published.count if published else None)
    if expected is not None and entries.count != expected:
        source = (
            "the recipe" if samples else f"the catalog ({published.source})" if published else ""
        )
        findings.add("entry_count", "annotations", f"{entries.count}; {source} says {expected}")
    if data_set is None:
        return
    if published is not None:
        said = published.text_only
        if said is not None and entries.text_only != said:
            detail = f"{entries.text_only}; {said} are published ({published.source})"
            findings.add("text_only_count", "annotations", detail)
        found: Counter[str] = Counter()
        for name, places in entries.images.items():
            found[name.partition("/")[0]] += len(places)
        for folder, count in published.folders.items():
            if found[folder] != count:
                detail = f"{found[folder]} entries; {count} are published ({published.source})"
                findings.add("folder_entries", folder, detail)
    for file in data_set.distribution:
        if file.file_count is None or file.folder == ".":
            continue
        there = tree.files_below(file.folder)
        if there is not None and there != file.file_count:
            detail = f"{there} files; {file.file_count} are published ({file.source})"
            findings.add("file_count", file.folder, detail)


def _joined(counts: Counter[str], depth: int) -> Counter[str]:
    joined: Counter[str] = Counter()
    for folder, count in counts.items():
        parts = folder.split("/")
        joined["/".join(parts[:depth]) + ("/..." if len(parts) > depth else "")] += count
    return joined
