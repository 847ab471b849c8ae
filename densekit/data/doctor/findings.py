"""All findings, grouped by kind: how many of each, and where the first ones are."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.data.doctor.kinds import KINDS, Kind, Severity
from densekit.files.whole import written_whole

FIRST = 10
"""Places of a kind that a report names; the list beside it names all."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The findings of one kind."""

    kind: Kind
    severity: Severity
    """The kind's, or note where a recipe's policy decides about unusable images."""
    remedy: str
    places: tuple[tuple[str, str], ...]
    """(place, detail) of each: an entry, a file or a folder; in the order they were met."""

    def as_json(self) -> dict[str, Any]:
        """The group with its first places."""
        first = [{"place": place, "detail": detail} for place, detail in self.places[:FIRST]]
        return {
            "kind": self.kind.name,
            "severity": self.severity,
            "what": self.kind.what,
            "remedy": self.remedy,
            "count": len(self.places),
            "first": first,
        }


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self._places: dict[str, list[tuple[str, str]]] = {}
        self.policy: str | None = None
        """What becomes of entries without a usable image, where that is no error."""

    def add(self, kind: str, place: str, detail: str = "") -> None:
        """Add one finding. Raises KeyError for a kind that there is not."""
        assert kind in KINDS, kind
        self._places.setdefault(kind, []).append((place, detail))

    def groups(self) -> tuple[Group, ...]:
        """Errors first, each severity in the order of KINDS."""
        found = [
            Group(
                kind=kind,
                severity=self._severity(kind),
                remedy=self.policy if kind.image and self.policy else kind.remedy,
                places=tuple(self._places[name]),
            )
            for name, kind in KINDS.items()
            if name in self._places
        ]
        return tuple(sorted(found, key=lambda group: group.severity != "error"))

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(
            len(places)
            for name, places in self._places.items()
            if self._severity(KINDS[name]) == severity
        )

    def _severity(self, kind: Kind) -> Severity:
        return "note" if kind.image and self.policy else kind.severity

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield (kind, place, detail) of each."""
        for group in self.groups():
            for place, detail in group.places:
                yield group.kind.name, place, detail

    def write(self, path: Path) -> None:
        """Write every finding, one JSON object a line. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            written_whole(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            for kind, place, detail in self:
                line = {
                    "severity": self._severity(KINDS[kind]),
                    "kind": kind,
                    "place": place,
                    "detail": detail,
                }
                file.write(json.dumps(line) + "\n")
