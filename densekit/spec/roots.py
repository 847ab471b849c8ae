"""Named roots: `data:`, `models:` and `cache:` references, so that a run does not depend on a
machine's paths.
"""

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where the named roots are on this machine."""

    data: Path = Path("data")
    models: Path = Path("models")
    cache: Path = Path(".cache/densekit")

    def resolve(self, reference: str) -> Path:
        """`data:a/b` -> <data root>/a/b; anything without a root name is a path already."""
        name, separator, rest = reference.partition(":")
        if separator and name in ("data", "models", "cache"):
            return Path(getattr(self, name)) / rest
        return Path(reference)

    def as_json(self) -> dict[str, str]:
        """Absolute paths, for execution.json."""
        return {name: str(Path(path).resolve()) for name, path in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, str]) -> "Roots":
        """Inverse of as_json."""
        return cls(**{name: Path(path) for name, path in values.items()})
