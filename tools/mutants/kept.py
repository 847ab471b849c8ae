"""What is known of mutants: the verdicts of earlier runs, and which mutants change nothing."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from tools.mutants.mutate import Mutant
from tools.mutants.room import Verdict


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """A mutant that no test can kill, because it computes the same; `reason` says why."""

    file: str
    text: str
    change: str
    reason: str
    nth: int = 0

    def names(self, file: str, mutant: Mutant) -> bool:
        """Whether this is the mutant of `file`."""
        of_mutant = (file, mutant.text, mutant.change, mutant.nth)
        return (self.file, self.text, self.change, self.nth) == of_mutant


def read_equivalents(path: Path) -> list[Equivalent]:
    """Read the list; raises TypeError for an entry with another field."""
    return [Equivalent(**entry) for entry in yaml.safe_load(path.read_text()) or []]


class Results:
    """Verdicts, one JSON line each, appended as they come.

    A verdict stands while the mutated file is the same. One of a mutant that survived also needs
    the same tests: new ones may kill it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Verdict] = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = Verdict(**entry["verdict"])

    def get(self, mutant: Mutant, *, code: str, tests: str) -> Verdict | None:
        """The verdict that stands; `code` and `tests` are digests."""
        return self._known.get(_key(mutant, code)) or self._known.get(_key(mutant, code, tests))

    def add(self, mutant: Mutant, verdict: Verdict, *, code: str, tests: str, file: str) -> None:
        """Keep one more verdict."""
        more = (tests,) if verdict.result == "survived" else ()
        key = _key(mutant, code, *more)
        self._known[key] = verdict
        named = {"file": file, "line": mutant.line, "change": mutant.change}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps({"key": key, **named, "verdict": asdict(verdict)}) + "\n")


def _key(mutant: Mutant, *digests: str) -> str:
    return digest_of([*digests, mutant.text, mutant.change, str(mutant.nth), str(mutant.line)])


def digest_of(texts: Iterable[str]) -> str:
    """One digest of some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
