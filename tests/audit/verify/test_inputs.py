"""Verifying what a run read, and its checkpoints."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from tests.support.audit import check_names, edit, edit_manifest, failures
from tests.support.runs import change_entry, flip_byte, position_after, train, write_checkpoint

# Inputs


def test_missing_inputs_are_warnings(own: tuple[Path, Path]) -> None:
    world, run = own
    shutil.rmtree(world)
    checks = verify_run(run)
    assert check_names(checks, "warn") == [
        "annotations",
        "language_model",
        "vision_tower",
        "tokenizer",
    ]
    assert check_names(checks, "fail") == []


def test_changed_inputs(own: tuple[Path, Path]) -> None:
    world, run = own
    change_entry(world, 3)
    flip_byte(world / "models" / "tower" / "model.safetensors", -1)
    (world / "models" / "lm" / "tokenizer.model").unlink()
    failed = failures(run)
    assert set(failed) == {"annotations", "vision_tower", "language_model"}
    assert f"{world}/data/train.json was changed" in failed["annotations"]
    assert "model.safetensors was changed" in failed["vision_tower"]
    assert f"{world}/models/lm/tokenizer.model is missing" in failed["language_model"]
    assert all("restore the original" in message for message in failed.values())


def test_entries_that_were_dropped_are_those_the_run_was_made_for(own: tuple[Path, Path]) -> None:
    _, run = own
    dropped = {"schema": 1, "policy": "drop", "entries": [{"entry": 3, "image": "a.png"}]}
    math = read_json(run / "math.json")
    math["inputs"]["missing"] = json_sha256(dropped)
    write_json(run / "math.json", math)
    assert "missing.json is missing" in failures(run)["missing"]
    write_json(run / "missing.json", dropped)
    assert "missing" in check_names(verify_run(run), "ok")
    write_json(run / "missing.json", {**dropped, "entries": []})
    assert "lists other entries" in failures(run)["missing"]


def test_connector_file_with_other_bytes_fails(own: tuple[Path, Path]) -> None:
    world, run = own
    weights = world / "models" / "projector.safetensors"
    weights.write_bytes(b"weights")
    math = read_json(run / "math.json")
    math["inputs"]["connector"] = file_sha256(weights)
    math["recipe"]["models"]["connector"] = "models:projector.safetensors"
    write_json(run / "math.json", math)
    assert "connector" in check_names(verify_run(run), "ok")
    flip_byte(weights, 0)
    assert "projector.safetensors was changed" in failures(run)["connector"]
    weights.unlink()
    assert "connector" in check_names(verify_run(run), "warn")


def test_made_annotations(own: tuple[Path, Path]) -> None:
    world, run = own
    write_json(run / "math.json", {**read_json(run / "math.json"), "inputs": {}})
    assert "annotations" in check_names(verify_run(run), "ok")
    change_entry(world, 3)
    assert "annotations" in failures(run)


def test_annotations_other_than_in_math(run: Path) -> None:
    edit_manifest(run, data={"annotations_sha256": "0" * 64})
    assert "data.annotations_sha256 differs from inputs.annotations" in failures(run)["annotations"]


def test_the_run_it_starts_from(run: Path, world: Path, tmp_path: Path) -> None:
    first = train(world, tmp_path / "first", recipe={"name": "stage1"})
    execution = {**read_json(run / "manifest.json")["execution"], "starts_from": str(first)}
    write_json(run / "attempts" / "0001" / "execution.json", execution)
    edit_manifest(run, execution=execution)
    write_json(
        run / "math.json", {**read_json(run / "math.json"), "starts_from": RunDir(first).sha256}
    )
    assert "starts_from" in check_names(verify_run(run), "ok")
    flip_byte(first / "connector.safetensors", -1)
    assert "connector.safetensors was changed" in failures(run)["starts_from"]
    edit(first / "math.json", lambda text: text.replace('"seed": 42', '"seed": 1'))
    assert f"{first} is not the run" in failures(run)["starts_from"]
    shutil.rmtree(first)
    assert "starts_from" in check_names(verify_run(run), "warn")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: flip_byte(folder / "rank-0000.safetensors", -1),
            "its SHA-256 is not the one recorded",
        ),
        (
            lambda folder: (folder / "rank-0000.safetensors").unlink(),
            "rank-0000.safetensors is missing",
        ),
        (
            lambda folder: (folder / "checkpoint.json").unlink(),
            "checkpoint.json is missing",
        ),
        (
            lambda folder: (folder / "checkpoint.json").write_text("{"),
            "checkpoint.json cannot be read",
        ),
        (
            lambda folder: edit(folder / "checkpoint.json", lambda text: text.replace("3", "4")),
            "its own hash does not fit its content",
        ),
        (
            lambda folder: folder.rename(folder.with_name("step-00000004")),
            "is of step 3, its folder is step-00000004",
        ),
    ],
)
def test_damaged_checkpoint(run: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = write_checkpoint(run, position_after(run, 3))
    write_checkpoint(run, position_after(run, 5))
    damage(folder)
    checks = [check for check in verify_run(run) if check.name == "checkpoints"]
    assert sorted(check.state for check in checks) == ["fail", "ok"]
    assert (
        message in failures(run)["checkpoints"]
        and "put back a copy of the checkpoint" in failures(run)["checkpoints"]
    )


def test_unfinished_save_is_ignored(run: Path) -> None:
    (run / "checkpoints" / ".step-00000004").mkdir(parents=True)
    (run / "checkpoints" / ".step-00000004" / "checkpoint.json").write_text("{", encoding="utf-8")
    assert "checkpoints" not in {check.name for check in verify_run(run)}
