"""What an examination found, as JSON for programs; the command line makes tables of it."""

from collections import Counter
from pathlib import Path
from typing import Any

from densekit.data.doctor.conversations import histogram
from densekit.data.doctor.examine import Examination
from densekit.data.doctor.findings import FIRST
from densekit.files.hashing import json_sha256

SCHEMA = 1


def as_json(found: Examination, listed: Path | None) -> dict[str, Any]:
    """The report. `listed`: the file that lists every finding, where it was written."""
    subject, files, entries = found.subject, found.files, found.entries
    pictures = files.pictures.values() if files else ()
    certificate = found.certificate
    return {
        "schema": SCHEMA,
        "ok": found.errors == 0,
        "errors": found.errors,
        "notes": found.notes,
        "subject": {
            "name": subject.name,
            "annotations": str(subject.annotations),
            "annotations_sha256": found.annotations_sha256,
            "images": str(subject.images),
            "data_set": subject.data_set.name if subject.data_set else None,
            "template": subject.template,
            "max_length": subject.max_length,
        },
        "depth": found.request.depth,
        "seed": found.request.seed,
        "entries": {
            "count": entries.count,
            "with_image": sum(map(len, entries.images.values())),
            "text_only": entries.text_only,
        },
        "images": {
            "named": len(entries.images),
            "there": len(pictures),
            "decoded": sum(picture.sha256 is not None for picture in pictures),
            "not_read_again": files.again if files else 0,
            "bytes": sum(picture.size for picture in pictures),
            "formats": _counted(picture.format for picture in pictures if picture.format),
            "modes": _counted(picture.mode for picture in pictures if picture.mode),
        },
        "findings": [group.as_json() for group in found.findings.groups()],
        "known": known_faults(found),
        "list": str(listed) if listed else None,
        "composition": [folder.as_json() for folder in found.folders],
        "lengths": {
            "turns": _ranges(entries.turns),
            "words": _ranges(entries.words),
            "tokens": _ranges(found.tokens),
            "edges": _ranges(
                Counter(
                    max(picture.width, picture.height)
                    for picture in pictures
                    if picture.width and picture.height
                )
            ),
        },
        "repaired": [repaired.as_json() for repaired in found.repaired],
        "certificate": None
        if certificate is None
        else {
            "root": certificate.root,
            "files": len(certificate.files),
            "file": str(found.certificate_file) if found.certificate_file else None,
        },
    }


def known_faults(found: Examination) -> list[str]:
    """What the catalog says of images of this data set that are wrong or gone, in sentences; empty
    where no image is.
    """
    data_set = found.subject.data_set
    if data_set is None or not any(group.kind.image for group in found.findings.groups()):
        return []
    lines = [
        f"{repair.files}: {repair.problem}; {repair.detail} (source: {repair.source})"
        for repair in data_set.repairs
    ]
    return lines + [
        f"not to be had: {gone.what}; {gone.effect} (source: {gone.source})"
        for gone in data_set.unavailable
    ]


def list_findings(found: Examination, cache: Path) -> Path | None:
    """Write every finding to a file in the cache where a report cannot name all; returns it, or
    None where there is no need or no room.
    """
    if all(len(group.places) <= FIRST for group in found.findings.groups()):
        return None
    key = json_sha256([str(found.subject.annotations), str(found.subject.images)])[:16]
    path = cache / "doctor" / f"findings_{key}.jsonl"
    try:
        found.findings.write(path)
    except OSError:
        return None
    return path


def _ranges(values: Counter[int]) -> list[dict[str, int]]:
    return [{"from": low, "to": high, "count": count} for low, high, count in histogram(values)]


def _counted(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())
