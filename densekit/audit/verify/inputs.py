"""Verifying what a run read: annotations, models, connector and the run it started from, where they
still are.

An input that is no longer there is a warning: a run outlives its data. One that changed is a
failure: what lies there now is not what the run read, and training from it would give something
else.
"""

from collections.abc import Iterator
from pathlib import Path

from densekit.audit.model_files import PARTS, model_folder
from densekit.audit.run_reader import section
from densekit.audit.verify.checks import Subject, check_file, summed
from densekit.runs.layout import RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.spec.check import Check

REMEDY = "it is not what the run read: put the original back before training or comparing from it"


def check_annotations(subject: Subject) -> Iterator[Check]:
    """The annotation file against the hash in math.json, and the manifest's against it."""
    inputs = section(subject.math, "inputs", subject.path / "math.json")
    recorded = subject.of_manifest("data").get("annotations_sha256")
    digest = inputs.get("annotations", recorded)
    if recorded is not None and recorded != digest:
        message = (
            f"{subject.path / MANIFEST_FILE}: data.annotations_sha256 is not inputs.annotations of math.json; the run "
            "read another file than it was made for: train again (`densekit run --force`)"
        )
        yield Check(name="annotations", state="fail", message=message)
    elif digest is not None:
        reference = section(subject.recipe, "data", subject.path / "math.json").get("annotations")
        yield _input("annotations", _resolved(subject, reference), digest)


def check_connector(subject: Subject) -> Iterator[Check]:
    """The connector weights that the recipe starts from."""
    digest = section(subject.math, "inputs", subject.path / "math.json").get("connector")
    if digest is not None:
        reference = section(subject.recipe, "models", subject.path / "math.json").get("connector")
        yield _input("connector", _resolved(subject, reference), digest)


def check_models(subject: Subject) -> Iterator[Check]:
    """Every file of the model folders against the manifest; a folder that serves two parts is read
    once.
    """
    models = subject.of_manifest("models")
    done: set[Path] = set()
    for part in [part for part in PARTS if part in models]:
        path = subject.path / MANIFEST_FILE
        files = section(section(models, part, path), "files", path)
        folder = model_folder(subject.recipe, subject.roots, part) if subject.roots else None
        if folder is None or not folder.is_dir():
            yield Check(
                name=part,
                state="warn",
                message=f"not checked: its folder {folder or ''} is not there",
            )
        elif folder not in done:
            checks = (
                check_file(part, folder / name, digest, source="the manifest", remedy=REMEDY)
                for name, digest in files.items()
            )
            yield from summed(part, checks, f"{len(files)} files in {folder} have their hashes")
            done.add(folder)


def check_start(subject: Subject) -> Iterator[Check]:
    """The run that this one starts from: still there, and still that run."""
    wanted = subject.math.get("starts_from")
    if wanted is None:
        return
    place = subject.execution.get("starts_from")
    if not isinstance(place, str) or not (Path(place) / "math.json").is_file():
        message = f"not checked: the run it starts from is not at {place}"
        yield Check(name="starts_from", state="warn", message=message)
    elif RunDir(Path(place)).sha256 != wanted:
        message = f"{place} is not the run {str(wanted)[:10]} that this one starts from; put that run back in its place"
        yield Check(name="starts_from", state="fail", message=message)
    else:
        yield Check(
            name="starts_from",
            state="ok",
            message=f"{place} is the run it starts from; verify that one too",
        )


def _resolved(subject: Subject, reference: object) -> Path | None:
    return (
        subject.roots.resolve(reference) if subject.roots and isinstance(reference, str) else None
    )


def _input(name: str, path: Path | None, digest: object) -> Check:
    if path is None or not path.exists():
        return Check(
            name=name, state="warn", message=f"not checked: {path or 'its folder'} is not there"
        )
    return check_file(name, path, digest, source="the run", remedy=REMEDY)
