"""The scorers, one module each that defines SCORER; `scorer` of a protocol names it."""

from functools import cache
from importlib import import_module
from pathlib import Path

from densekit.errors import UsageError
from densekit.evaluate.scorers.scorer import Scorer
from densekit.files.hashing import file_sha256

_FOLDER = Path(__file__).parent


def scorer_names() -> tuple[str, ...]:
    """Modules of this folder that define SCORER, sorted."""
    return tuple(
        sorted(
            path.stem
            for path in _FOLDER.glob("*.py")
            if "\nSCORER = " in path.read_text(encoding="utf-8")
        )
    )


def get_scorer(name: str) -> Scorer:
    """A scorer by name. Raises UsageError for one that does not exist."""
    if name not in scorer_names():
        raise UsageError(f"unknown scorer {name!r}; known: {', '.join(scorer_names())}")
    scorer: Scorer = import_module(f"densekit.evaluate.scorers.{name}").SCORER
    return scorer


@cache
def scorer_sources() -> dict[str, str]:
    """SHA-256 of every file of the scorers' code: what scores and calibrations hold for."""
    return {path.name: file_sha256(path) for path in sorted(_FOLDER.glob("*.py"))}
