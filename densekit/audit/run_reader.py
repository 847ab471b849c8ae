"""What one run directory recorded, read and checked for shape, so that comparing two never meets a
surprise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densekit.errors import DataError
from densekit.files.json_files import optional_object, read_jsonl
from densekit.runs.layout import RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import FEED_FILE, METRICS_FILE
from densekit.spec.roots import Roots

NUMBERS = ("loss", "lr", "grad_norm")
DIGESTS = ("ids", "images")
TEXT_COUNTS = ("tokens", "supervised_tokens", "masked_samples")
UPDATES = ("updated", "overflows")


@dataclass(frozen=True, kw_only=True)
class Fed:
    """One step's samples in official order: their ids, and their image digests (None: text only)."""

    samples: list[str]
    images: list[str | None]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One run as it lies on disk. `manifest` is {} before the first attempt wrote one; `execution`
    and `environment` are the last attempt's, {} when there is none; `earlier` holds the
    environments of those before it, by number; `metrics[i]` is step i + 1; `feed` goes by step and
    is empty when its file is not there.
    """

    path: Path
    math: dict[str, Any]
    run: str
    state: str
    message: str
    manifest: dict[str, Any]
    execution: dict[str, Any]
    environment: dict[str, Any]
    earlier: dict[int, dict[str, Any]]
    metrics: list[dict[str, Any]]
    feed: dict[int, Fed]

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe's math."""
        return section(self.math, "recipe", self.path / "math.json")

    @property
    def inputs(self) -> dict[str, Any]:
        """SHA-256 of the files that belong to the run's identity; the annotations' also where the
        kit made them.
        """
        found = {**section(self.math, "inputs", self.path / "math.json")}
        data = section(self.manifest, "data", self.path / MANIFEST_FILE)
        return {"annotations": data.get("annotations_sha256"), **found}

    @property
    def roots(self) -> Roots:
        """Where the attempt found its data and models."""
        return execution_roots(self.execution, self.path)


def read_evidence(path: Path) -> Evidence:
    """Read a run directory; DataError naming the file (and line) that is missing, cut off or of
    another shape.
    """
    if not (path / "math.json").is_file():
        raise DataError(
            f"{path} is no run directory: it has no math.json; give a folder that `densekit run` made"
        )
    try:
        return _read(RunDir(path))
    except DataError as error:
        raise DataError(
            f"{error}; put back a copy of the file, or train again (`densekit run --force`)"
        ) from None


def _read(run: RunDir) -> Evidence:
    path, status = run.path, run.status
    manifest = optional_object(path / MANIFEST_FILE)
    last = status.attempt if isinstance(status.attempt, int) else 0
    attempt = run.attempt_folder(last)
    written = sorted((path / "attempts").glob("[0-9][0-9][0-9][0-9]/environment.json"))
    earlier = {
        number: optional_object(file)
        for file in written
        if (number := int(file.parent.name)) < last
    }
    return Evidence(
        path=path,
        math=run.math.as_json(),
        run=run.sha256,
        state=str(status.state),
        message=str(status.message),
        manifest=manifest,
        execution=section(manifest, "execution", path / MANIFEST_FILE)
        or optional_object(attempt / "execution.json"),
        environment=section(manifest, "environment", path / MANIFEST_FILE)
        or optional_object(attempt / "environment.json"),
        earlier=earlier,
        metrics=read_metrics(path / METRICS_FILE),
        feed=read_feed(path / FEED_FILE),
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps of metrics.jsonl, [] when there is none yet; DataError for a line that cannot be
    compared.
    """
    if not path.exists():
        return []
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        missing = [
            name for name in (*NUMBERS, *DIGESTS, *TEXT_COUNTS, *UPDATES) if name not in record
        ]
        odd = [name for name in NUMBERS if name in record and not _is_number(record[name])]
        if record.get("step") != number:
            raise DataError(
                f"{path}: line {number} is step {record.get('step')}: a step is missing or doubled"
            )
        if missing or odd:
            problem = (
                f"has no {', '.join(missing)}" if missing else f"has a {odd[0]} that is no number"
            )
            raise DataError(
                f"{path}: line {number} {problem}: it was edited, or written by another version"
            )
    return records


def read_feed(path: Path) -> dict[int, Fed]:
    """The steps of feed.jsonl, {} when there is none; DataError for a line of another shape."""
    if not path.exists():
        return {}
    steps: dict[int, Fed] = {}
    for number, record in enumerate(read_jsonl(path), start=1):
        samples, images = record.get("samples"), record.get("images")
        fits = (
            record.get("step") == number
            and isinstance(samples, list)
            and isinstance(images, list)
            and len(samples) == len(images)
            and all(isinstance(sample, str) for sample in samples)
            and all(image is None or isinstance(image, str) for image in images)
        )
        if not fits:
            raise DataError(
                f"{path}: line {number} is not step {number} with its samples and images: it was edited"
            )
        steps[number] = Fed(samples=samples or [], images=images or [])
    return steps


def section(value: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The object under `name`, {} when it is absent or null; DataError naming the file when it is
    something else.
    """
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DataError(f"{path}: `{name}` is no JSON object: the file was edited")
    return found


def execution_roots(execution: Mapping[str, Any], path: Path) -> Roots:
    """The named roots of an execution; DataError when they are not there."""
    try:
        return Roots.model_validate(section(execution, "roots", path))
    except ValidationError:
        raise DataError(
            f"{path}: the execution's `roots` are not paths under the names data, models, cache"
        ) from None


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value is None or isinstance(value, float) or whole
