"""The manifest: what ran, from which code, packages, models and data, sealed with its own hash.

`start_manifest` is written when an attempt starts (`state` "running"), `complete_manifest` when it
ends ("complete"). The seal is the SHA-256 of the canonical JSON of everything else in it, so an
edit by hand shows.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densekit.files.hashing import file_sha256, json_sha256, tree_sha256
from densekit.files.json_files import read_jsonl
from densekit.runs.records import METRICS_FILE
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath

MANIFEST_FILE = "manifest.json"
SCHEMA = 1
CERTIFIED = ("sha256", "steps", "samples_dropped", "samples_repeated")


def start_manifest(
    *,
    math: RunMath,
    environment: Mapping[str, Any],
    execution: Execution,
    attempts: int,
    certificate: Mapping[str, Any],
    annotations_sha256: str,
    models: Mapping[str, Path],
) -> dict[str, Any]:
    """What an attempt starts from, sealed.

    `math` is math.json, `environment` and `execution` the attempt's, `attempts` its number,
    `certificate` certificate.json. `models` gives the folders of language_model, vision_tower and
    tokenizer; every file directly in them is hashed, so this reads the weights once. Raises OSError
    when one cannot be read.
    """
    hashed = {
        folder: tree_sha256(folder) for folder in set(models.values())
    }  # one folder often serves two parts
    return sealed(
        {
            "schema": SCHEMA,
            "state": "running",
            "run": math.sha256,
            "recipe": math.recipe.name,
            "starts_from": math.starts_from,
            "environment": dict(environment),
            "execution": execution.as_json(),
            "attempts": attempts,
            "certificate": {name: certificate[name] for name in CERTIFIED},
            "data": {"annotations_sha256": annotations_sha256},
            "models": {
                name: {"revision": _revision(folder), "files": hashed[folder]}
                for name, folder in models.items()
            },
            "init_sha256": None,
            "metrics_sha256": None,
            "chain": None,
            "outputs": {},
        }
    )


def complete_manifest(
    started: Mapping[str, Any], *, run: Path, init: Path, outputs: Sequence[Path]
) -> dict[str, Any]:
    """The manifest of a run that ended: `started` with what it wrote, sealed anew.

    `run` is the run directory with its metrics.jsonl, `init` the initial weights, `outputs` files
    inside `run`. Raises DataError when the metrics cannot be read.
    """
    records = read_jsonl(run / METRICS_FILE)
    return sealed(
        {
            **started,
            "state": "complete",
            "init_sha256": file_sha256(init),
            "metrics_sha256": file_sha256(run / METRICS_FILE),
            "chain": {
                "steps": len(records),
                "sha256": records[-1]["chain"] if records else started["run"],
            },
            "outputs": {path.relative_to(run).as_posix(): file_sha256(path) for path in outputs},
        }
    )


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with `sha256`: the hash of the canonical JSON of everything else."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**content, "sha256": json_sha256(content)}


def check_seal(manifest: Mapping[str, Any]) -> bool:
    """Whether nothing in a manifest changed since it was sealed."""
    return bool(manifest.get("sha256") == sealed(manifest)["sha256"])


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
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip() or None
    except (OSError, UnicodeDecodeError, IndexError):
        return None
