"""Verifying what a run read: annotations, models, connector and the run it started from, where they
still are.

An input that is no longer there is a warning: a run outlives its data. One that changed is a
failure: what is there now is not what the run read, and training from it would give another result.
"""

from collections.abc import Iterator
from pathlib import Path

from densekit.audit.model_files import PARTS, model_folder
from densekit.audit.run_reader import RecordedRun
from densekit.audit.verify.file_hashes import check_file, check_folder
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_object
from densekit.runs.complete import check_complete
from densekit.runs.layout import MISSING_FILE, RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import REMEDY as RECORDS_REMEDY
from densekit.spec.check import Check

REMEDY = "it is not what the run read: restore the original before training or comparing from it"


def check_annotations(run: RecordedRun) -> Iterator[Check]:
    """The annotation file against the hash in math.json, and the manifest's against it."""
    digest = run.inputs.get("annotations")
    if digest is None or run.math is None:
        return
    if run.manifest is not None and run.manifest.data.annotations_sha256 != digest:
        message = (
            f"{run.path / MANIFEST_FILE}: data.annotations_sha256 differs from inputs.annotations "
            "of math.json: the run read another file than it was made for; retrain (`densekit run "
            "--force`)"
        )
        yield Check(name="annotations", state="fail", message=message)
    else:
        yield _check_input(run, "annotations", run.math.recipe.data.annotations, digest)


def check_missing(run: RecordedRun) -> Iterator[Check]:
    """The entries that the run dropped or replaced, against the hash in math.json."""
    digest, path = run.inputs.get("missing"), run.path / MISSING_FILE
    if digest is None:
        return
    if not path.exists():
        if run.steps:
            message = f"{path} is missing although steps were trained; {RECORDS_REMEDY}"
            yield Check(name="missing", state="fail", message=message)
    elif json_sha256(read_object(path)) != digest:
        message = (
            f"{path} lists other entries than the run was made for (inputs.missing of math.json); "
            f"{RECORDS_REMEDY}"
        )
        yield Check(name="missing", state="fail", message=message)
    else:
        message = "the entries without a usable image are those the run was made for"
        yield Check(name="missing", state="ok", message=message)


def check_connector(run: RecordedRun) -> Iterator[Check]:
    """The connector weights that the recipe starts from."""
    digest = run.inputs.get("connector")
    if digest is not None and run.math is not None:
        yield _check_input(run, "connector", run.math.recipe.models.connector, digest)


def check_models(run: RecordedRun) -> Iterator[Check]:
    """Every file of the model folders against the manifest; a folder that serves two parts is read
    once.
    """
    models = run.manifest.models if run.manifest is not None else {}
    done: set[Path] = set()
    for part in [part for part in PARTS if part in models]:
        folder = model_folder(run, part)
        if folder is None or not folder.is_dir():
            message = f"not checked: its folder {folder or ''} is missing"
            yield Check(name=part, state="warn", message=message)
        elif folder not in done:
            files = models[part].files
            yield from check_folder(
                part,
                folder,
                files,
                source="the manifest",
                remedy=REMEDY,
                ok=f"{len(files)} files in {folder} have their recorded hashes",
            )
            done.add(folder)


def check_start(run: RecordedRun) -> Iterator[Check]:
    """The run that this one starts from: still there, still that run, its connector unchanged."""
    wanted = run.math.starts_from if run.math is not None else None
    if wanted is None:
        return
    place = run.execution.starts_from if run.execution is not None else None
    name = "starts_from"
    if place is None or not (Path(place) / "math.json").is_file():
        message = f"not checked: the run it starts from is not at {place or 'any recorded place'}"
        yield Check(name=name, state="warn", message=message)
    elif RunDir(Path(place)).sha256 != wanted:
        message = (
            f"{place} is not the run {wanted[:10]} that this one starts from; put that run back "
            "in its place"
        )
        yield Check(name=name, state="fail", message=message)
    else:
        check_complete(RunDir(Path(place)))
        message = f"{place} is the run it starts from; verify that one too"
        yield Check(name=name, state="ok", message=message)


def _check_input(run: RecordedRun, name: str, reference: str | None, digest: str) -> Check:
    path = None
    if run.execution is not None and reference is not None:
        path = run.execution.roots.resolve(reference)
    if path is None or not path.exists():
        message = f"not checked: {path or 'its folder'} is missing"
        return Check(name=name, state="warn", message=message)
    return check_file(name, path, digest, source="the run", remedy=REMEDY)
