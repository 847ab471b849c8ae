"""Paths of this host that a launcher has to write into a script, a mount or an option, and what it
cannot write there: a line break ends a line of a batch script, a comma a mount.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from densekit.errors import UsageError
from densekit.spec.math import Math
from densekit.spec.roots import Roots

NAMES = {
    '"': "a double quote",
    "'": "a single quote",
    "\\": "a backslash",
    ",": "a comma",
    ":": "a colon",
    "\n": "a line break",
    "\r": "a carriage return",
    "\t": "a tab",
}


def host_paths(runs_dir: Path, roots: Roots, maths: Sequence[Math]) -> Iterator[tuple[str, Path]]:
    """Option or field, and the path: what the runs of these recipes read and write."""
    yield "--runs-dir", runs_dir
    yield "--data-dir", roots.data
    yield "--models-dir", roots.models
    yield "--cache-dir", roots.cache
    for math in maths:
        for field, path in recipe_paths(math):
            yield f"{math.name}: {field}", path


def recipe_paths(math: Math) -> Iterator[tuple[str, Path]]:
    """Field, and the absolute path that a recipe of one's own names there instead of a root."""
    parts = {"models": math.models.model_dump()}
    parts["data"] = {"annotations": math.data.annotations, "images": math.data.images}
    if math.probe:
        parts["probe"] = math.probe.model_dump()
    for part, values in parts.items():
        for name, reference in values.items():
            if isinstance(reference, str) and Path(reference).is_absolute():
                yield f"{part}.{name}", Path(reference)


def refuse_paths(paths: Iterator[tuple[str, Path]], forbidden: str, launcher: str) -> None:
    """UsageError for the first path with a control character, or with one that is `forbidden`."""
    for source, path in paths:
        for place in (path.absolute(), path.resolve()):
            bad = next((c for c in str(place) if c in forbidden or _is_control(c)), None)
            if bad is not None:
                raise UsageError(
                    f"{source} {printable(place)}: the {launcher} launcher cannot take a path with "
                    f"{NAMES.get(bad, 'a control character')}; rename the folder, choose another, "
                    "or use --launcher local, which takes any path"
                )


def printable(text: object) -> str:
    """Text on one line: control characters as Python escapes them."""
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in str(text))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
