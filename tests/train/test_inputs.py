"""What a run reads is what it was made for, and what its earlier attempts read."""

import json
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.runs.manifest import Manifest, read_manifest
from densekit.train.inputs import check_earlier_inputs, check_inputs
from tests.support.runs import flip_byte, make_world, train


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs", stop_after=3))


def test_annotations_that_changed_since_the_run_was_made(run: RunDir) -> None:
    """Of the run that waits in a queue, or was interrupted."""
    roots = run.execution.roots
    path = roots.resolve("data:train.json")
    check_inputs(run, roots, file_sha256(path))
    flip_byte(path, 5)
    with pytest.raises(DataError, match=r"train.json is not the file .*inputs.annotations.*put"):
        check_inputs(run, roots, file_sha256(path))


def test_a_connector_that_changed_since_the_run_was_made(run: RunDir) -> None:
    roots = run.execution.roots
    weights = roots.resolve("models:projector.safetensors")
    weights.write_bytes(b"weights")
    math = read_json(run.path / "math.json")
    math["recipe"]["models"]["connector"] = "models:projector.safetensors"
    math["inputs"]["connector"] = file_sha256(weights)
    write_json(run.path / "math.json", math)
    annotations = math["inputs"]["annotations"]
    check_inputs(run, roots, annotations)
    flip_byte(weights, 0)
    with pytest.raises(DataError, match=r"projector.safetensors is not the file .*put that file"):
        check_inputs(run, roots, annotations)


def changed(manifest: Manifest, part: str, name: str) -> Manifest:
    """The manifest of an attempt that reads another file of this name."""
    value = manifest.as_json()
    value["models"][part]["files"][name] = "0" * 64
    return Manifest.model_validate(value).sealed()


@pytest.mark.parametrize(
    ("part", "name", "refused"),
    [
        ("language_model", "model.safetensors", True),
        ("vision_tower", "config.json", True),
        ("tokenizer", "tokenizer.model", True),
        ("language_model", "README.md", False),
    ],
)
def test_model_files_that_changed_between_two_attempts(
    run: RunDir, part: str, name: str, refused: bool
) -> None:
    manifest = read_manifest(run.path)
    check_earlier_inputs(run, manifest)
    if not refused:
        return check_earlier_inputs(run, changed(manifest, part, name))
    with pytest.raises(DataError, match=rf"begun with other files: {part}: {name} changed"):
        check_earlier_inputs(run, changed(manifest, part, name))


def test_an_earlier_manifest_that_was_edited_is_refused_and_may_be_removed(run: RunDir) -> None:
    manifest = read_manifest(run.path)
    path = run.path / "manifest.json"
    path.write_text(json.dumps({**read_json(path), "attempts": 7}))
    with pytest.raises(DataError, match=r"was edited: .*or remove it"):
        check_earlier_inputs(run, manifest)
    path.unlink()
    check_earlier_inputs(run, manifest)
