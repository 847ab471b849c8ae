"""All findings, grouped by kind: how many of each, and where the first ones are."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.data.doctor.kinds import KINDS, Kind

FIRST = 10
"""Places of a kind that a report names; the list beside it names all."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The findings of one kind."""

    kind: Kind
    places: tuple[tuple[str, str], ...]
    """(place, detail) of each: an entry, a file or a folder; in the order they were met."""

    def as_json(self) -> dict[str, Any]:
        """The group with its first places."""
        first = [{"place": place, "detail": detail} for place, detail in self.places[:FIRST]]
        return {
            "kind": self.kind.name,
            "severity": self.kind.severity,
            "what": self.kind.what,
            "remedy": self.kind.remedy,
            "count": len(self.places),
            "first": first,
        }


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self._places: dict[str, list[tuple[str, str]]] = {}

    def add(self, kind: str, place: str, detail: str = "") -> None:
        """Add one finding. Raises KeyError for a kind that there is not."""
        assert kind in KINDS, kind
        self._places.setdefault(kind, []).append((place, detail))

    def extend(self, found: Iterable[tuple[str, str, str]]) -> None:
        """Add many."""
        for kind, place, detail in found:
            self.add(kind, place, detail)

    def groups(self) -> tuple[Group, ...]:
        """Errors first, each severity in the order of KINDS."""
        found = [
            Group(kind=KINDS[name], places=tuple(self._places[name]))
            for name in KINDS
            if name in self._places
        ]
        return tuple(sorted(found, key=lambda group: group.kind.severity != "error"))

    def count(self, severity: str) -> int:
        """Findings of one severity."""
        return sum(
            len(places) for name, places in self._places.items() if KINDS[name].severity == severity
        )

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield (kind, place, detail) of each."""
        for group in self.groups():
            for place, detail in group.places:
                yield group.kind.name, place, detail

    def write(self, path: Path) -> None:
        """Write every finding, one JSON object a line. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for kind, place, detail in self:
                line = {
                    "severity": KINDS[kind].severity,
                    "kind": kind,
                    "place": place,
                    "detail": detail,
                }
                file.write(json.dumps(line) + "\n")
        temporary.replace(path)
