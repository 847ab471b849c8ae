"""The manifest: what ran, from which code, packages, models and data, sealed with its own hash.

`start_manifest` is written when an attempt starts (`state` "running"), `complete_manifest` when it
ends ("complete"). The seal is the SHA-256 of the canonical JSON of everything else in it, so an
edit by hand shows.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from densekit.batching.certificate import BatchCertificate
from densekit.files.hashing import file_sha256, files_sha256, sealed
from densekit.files.json_files import read_object
from densekit.runs.environment import Environment
from densekit.runs.records import METRICS_FILE, REMEDY, read_steps
from densekit.spec.conversion import read_conversion
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath
from densekit.spec.part import Part, read_part

MANIFEST_FILE = "manifest.json"
SCHEMA: Literal[1] = 1


class Certified(Part):
    """What a manifest repeats of the batch certificate."""

    sha256: str
    steps: int
    samples_dropped: int
    samples_repeated: int

    @classmethod
    def of(cls, certificate: BatchCertificate) -> "Certified":
        """The certificate's values."""
        return cls(**{name: getattr(certificate, name) for name in cls.model_fields})


class DataFiles(Part):
    """What data a run reads."""

    annotations_sha256: str
    certificate_root: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of the data certificate that was known for annotations and images when the attempt started:
    what the images were when `densekit data verify --full` looked at them. Not in the JSON when
    there was none: it came after schema 1.
    """


class ModelFiles(Part):
    """A model's folder."""

    revision: str | None
    """Commit it was downloaded at; null when nothing or not one thing says it."""
    files: dict[str, str]
    """SHA-256 by file name."""
    converted_from: dict[str, str] | None = None
    """SHA-256 of the pickles that the safetensors were made of, by file name; null where nothing
    was converted.
    """


class Chain(Part):
    """Where the hash chain of metrics.jsonl ends."""

    steps: int
    sha256: str


class Manifest(Part):
    """manifest.json."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    state: Literal["running", "complete"]
    run: str
    """Hash of math.json."""
    recipe: str
    starts_from: str | None
    environment: Environment
    execution: dict[str, Any]
    """execution.json of the attempt, as it was written (`Execution.from_json` reads it)."""
    attempts: int
    """Number of the attempt."""
    certificate: Certified
    data: DataFiles
    models: dict[str, ModelFiles]
    """Of language_model, vision_tower and tokenizer."""
    init_sha256: str | None = None
    """Of the weights at step 0."""
    metrics_sha256: str | None = None
    """Of metrics.jsonl; this and the rest are null or empty until the run is complete."""
    chain: Chain | None = None
    outputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what training wrote, by path inside the run."""
    sha256: str = ""
    """The seal."""

    def as_json(self) -> dict[str, Any]:
        """What manifest.json holds."""
        return self.model_dump(mode="json", by_alias=True)

    def sealed(self) -> "Manifest":
        """The same with a seal that fits its content."""
        return Manifest.model_validate(sealed(self.as_json()))


def start_manifest(
    *,
    math: RunMath,
    environment: Environment,
    execution: Execution,
    attempts: int,
    certificate: BatchCertificate,
    annotations_sha256: str,
    certificate_root: str | None = None,
    models: Mapping[str, ModelFiles],
    init: Path,
) -> Manifest:
    """What an attempt starts from, sealed.

    `math` is math.json, `environment` and `execution` the attempt's, `attempts` its number, `init`
    the file of the initial weights, `models` what `hash_models` found. Raises OSError when a file
    cannot be read.
    """
    return Manifest(
        state="running",
        run=math.sha256,
        recipe=math.recipe.name,
        starts_from=math.starts_from,
        environment=environment,
        execution=execution.as_json(),
        attempts=attempts,
        certificate=Certified.of(certificate),
        data=DataFiles(annotations_sha256=annotations_sha256, certificate_root=certificate_root),
        models=dict(models),
        init_sha256=file_sha256(init),
    ).sealed()


def hash_models(folders: Mapping[str, Path]) -> dict[str, ModelFiles]:
    """The files in the folders of language_model, vision_tower and tokenizer; reads the weights
    once. Raises as `model_files`.
    """
    # One folder often serves two parts.
    hashed = {folder: model_files(folder) for folder in set(folders.values())}
    return {name: hashed[folder] for name, folder in folders.items()}


def model_files(folder: Path) -> ModelFiles:
    """What a manifest says of a model's folder: every file directly in it is hashed, except the
    pickles of a conversion, which nothing reads; its record has their hashes.

    Raises OSError when a file cannot be read, DataError for a damaged record.
    """
    conversion = read_conversion(folder)
    originals = conversion.originals if conversion else {}
    return ModelFiles(
        revision=_revision(folder),
        files=files_sha256(folder, skip=originals.keys()),
        converted_from={name: file.sha256 for name, file in originals.items()} or None,
    )


def complete_manifest(started: Manifest, *, run: Path, outputs: Sequence[Path]) -> Manifest:
    """The manifest of a run that ended: `started` with what it wrote, sealed again.

    `run` is the run directory with its metrics.jsonl, `outputs` are files inside it. Raises
    DataError when the metrics cannot be read.
    """
    records = read_steps(run / METRICS_FILE)
    ended = {
        "state": "complete",
        "metrics_sha256": file_sha256(run / METRICS_FILE),
        "chain": Chain(steps=len(records), sha256=records[-1].chain if records else started.run),
        "outputs": {path.relative_to(run).as_posix(): file_sha256(path) for path in outputs},
    }
    return started.model_copy(update=ended).sealed()


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run directory; its seal is not checked. Raises DataError for one that is
    missing or not what densekit wrote.
    """
    path = run / MANIFEST_FILE
    return read_part(Manifest, read_object(path, remedy=REMEDY), source=path, remedy=REMEDY)


def folder_commits(folder: Path) -> set[str]:
    """Commits that a folder says it was downloaded at; several when its files disagree, none when
    nothing says.

    Read from `.revision`, the path in a hub cache (`snapshots/<commit>`), `refs/main`, or the notes
    that `hf download --local-dir` leaves.
    """
    if folder.resolve().parent.name == "snapshots":
        return {folder.resolve().name}
    for place in (folder / ".revision", folder / "refs" / "main"):
        if (written := _first_line(place)) is not None:
            return {written}
    notes = (folder / ".cache" / "huggingface" / "download").rglob("*.metadata")
    return {
        commit
        for note in notes
        if (commit := _first_line(note)) and re.fullmatch("[0-9a-f]+", commit)
    }


def _revision(folder: Path) -> str | None:
    """The one commit of a model's folder; null when nothing or not one thing says it."""
    commits = folder_commits(folder)
    return commits.pop() if len(commits) == 1 else None


def _first_line(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip() or None
    except (OSError, UnicodeDecodeError, IndexError):
        return None
