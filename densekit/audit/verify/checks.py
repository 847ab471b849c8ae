"""What verifying a run works with: one check's outcome, and the run directory as far as it can be
read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.audit.run_reader import execution_roots, section
from densekit.errors import DataError
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import optional_object
from densekit.runs.manifest import MANIFEST_FILE
from densekit.spec.check import Check
from densekit.spec.roots import Roots


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run directory under verification; a file that is missing or broken is {} here and fails its
    own check.
    """

    path: Path
    math: dict[str, Any]
    status: dict[str, Any]
    manifest: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Subject":
        """What can be read of a run directory; DataError when it is none."""
        names = ("math.json", "status.json", MANIFEST_FILE)
        if not any((path / name).is_file() for name in names):
            raise DataError(
                f"{path} is no run directory: it has no math.json; give a folder that `densekit run` made"
            )
        math, status, manifest = (_readable(path / name) for name in names)
        return cls(path=path, math=math, status=status, manifest=manifest)

    @property
    def complete(self) -> bool:
        """Whether the run says that it ended; a run without a readable status is judged by its
        manifest.
        """
        return "complete" in (self.status.get("state"), self.manifest.get("state"))

    @property
    def run(self) -> str:
        """The hash that the run's records must start from: the manifest's, so that an edited
        math.json shows once.
        """
        return str(self.manifest.get("run") or json_sha256(self.math))

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe's math."""
        return section(self.math, "recipe", self.path / "math.json")

    @property
    def attempt(self) -> Path:
        """Folder of the last attempt."""
        number = self.status.get("attempt")
        return self.path / "attempts" / (f"{number:04d}" if isinstance(number, int) else "0000")

    @property
    def execution(self) -> dict[str, Any]:
        """How the last attempt carried the math out."""
        recorded = section(self.manifest, "execution", self.path / MANIFEST_FILE)
        return recorded or optional_object(self.attempt / "execution.json")

    @property
    def roots(self) -> Roots | None:
        """Where the last attempt found data and models; None when no attempt says."""
        execution = self.execution
        return execution_roots(execution, self.path) if execution.get("roots") else None

    def of_manifest(self, name: str) -> dict[str, Any]:
        """An object in the manifest, {} when it has none of that name."""
        return section(self.manifest, name, self.path / MANIFEST_FILE)


def check_file(name: str, path: Path, sha256: Any, *, source: str, remedy: str) -> Check:
    """Whether a file has the hash that `source` says; missing or unreadable is a failure."""
    try:
        found = file_sha256(path)
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        return Check(
            name=name, state="fail", message=f"{path} {why}, but {source} has its hash; {remedy}"
        )
    if found != sha256:
        message = f"{path} was changed: its SHA-256 is {found[:16]}..., {source} says {str(sha256)[:16]}...; {remedy}"
        return Check(name=name, state="fail", message=message)
    return Check(name=name, state="ok", message=f"{path.name} has the hash that {source} says")


def summed(name: str, checks: Iterator[Check], message: str) -> Iterator[Check]:
    """The failures and warnings of many like checks; one `ok` with `message` when there are none."""
    troubles = [check for check in checks if check.state != "ok"]
    yield from troubles or [Check(name=name, state="ok", message=message)]


def _readable(path: Path) -> dict[str, Any]:
    try:
        return optional_object(path)
    except DataError:
        return {}
