"""What all samples of a recipe come to in tokens, once `densekit data count` counted them: plans
find it by path, size and time of the files, without reading them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from densekit.data.image_tokens import ImageTokens
from densekit.errors import DataError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_json, write_json
from densekit.spec.types import Semantics

FOLDER = "totals"


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What counting takes; what other processes are given."""

    annotations: Path
    tokenizer: Path
    template: str
    semantics: Semantics
    max_length: int
    image_tokens: int
    """Of an image; under AnyRes of the one that has most."""
    sized: ImageTokens | None = None
    """Where an image's tokens depend on its size."""


@dataclass(frozen=True, kw_only=True)
class SampleTotals:
    """Sums over all samples of an annotation file, as the model sees them."""

    samples: int
    images: int
    tokens: int
    """Image slots included."""
    squares: int
    """Of their lengths: what attention costs."""
    longest: int
    label_positions: int
    notes: dict[str, int]
    """What happened to samples on the way to tokens, by kind."""


def keep_totals(counting: Counting, cache: Path, totals: SampleTotals) -> None:
    """Write down what was counted. Raises OSError."""
    path = _kept_at(counting, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(totals))


def kept_totals(counting: Counting, cache: Path) -> SampleTotals | None:
    """What was counted of these files; None where it was not, or they changed since."""
    try:
        value = read_json(_kept_at(counting, cache))
        return TypeAdapter(SampleTotals).validate_python(value)
    except (OSError, DataError, ValidationError):
        return None  # it can always be counted again


def _kept_at(counting: Counting, cache: Path) -> Path:
    """Named after all that decides the totals. Raises OSError without the files."""
    files = [counting.annotations, *sorted(counting.tokenizer.iterdir())]
    states = {str(path.resolve()): path.stat() for path in files if path.is_file()}
    key = {
        "files": {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
        "template": counting.template,
        "semantics": counting.semantics,
        "max_length": counting.max_length,
        "image_tokens": counting.image_tokens,
        **({} if counting.sized is None else {"sizes": counting.sized.sizes}),
    }
    return cache / FOLDER / f"{json_sha256(key)}.json"
