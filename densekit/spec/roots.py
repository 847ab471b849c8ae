"""Named roots: `data:`, `models:` and `cache:` references, so that a run does not depend on a
machine's paths.
"""

from pathlib import Path

from densekit.spec.part import Part


class Roots(Part):
    """Where the named roots are on this machine."""

    data: Path = Path("data")
    models: Path = Path("models")
    cache: Path = Path(".cache/densekit")

    def resolve(self, reference: str) -> Path:
        """`data:a/b` -> <data root>/a/b; anything without a root name is a path already."""
        name, separator, rest = reference.partition(":")
        if separator and name in type(self).model_fields:
            return Path(getattr(self, name)) / rest
        return Path(reference)

    def resolve_optional(self, reference: str | None) -> Path | None:
        """The same of a reference that may be left out."""
        return None if reference is None else self.resolve(reference)

    def absolute(self) -> "Roots":
        """The same folders, whatever the working directory of who reads them."""
        return Roots(**{name: getattr(self, name).resolve() for name in type(self).model_fields})

    def as_json(self) -> dict[str, str]:
        """Absolute paths, for execution.json."""
        return {name: str(path) for name, path in self.absolute().model_dump().items()}
