"""Verifying a run's own files: an intact run passes, damage is named with its remedy."""

import re
import shutil
from pathlib import Path

import pytest

from densekit.audit.run_reader import read_run
from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution
from tests.support.audit import Edit, check_names, edit, edit_manifest, failures
from tests.support.runs import copy_world, flip_byte, train


def test_intact_run_passes(original: Path) -> None:
    checks = verify_run(original)
    assert {check.state for check in checks} == {"ok"}
    assert [check.name for check in checks] == [
        "math",
        "status",
        "manifest",
        "execution",
        "environment",
        "steps",
        "certificate",
        "metrics",
        "init",
        "outputs",
        "annotations",
        "language_model",
        "vision_tower",
    ]
    assert "6 steps match the feed and the hash chain" in [check.message for check in checks]


@pytest.mark.parametrize("stop_after", [0, 3, 6])
def test_unfinished_run_passes_with_a_warning(world: Path, tmp_path: Path, stop_after: int) -> None:
    run = train(world, tmp_path, stop_after=stop_after)
    checks = verify_run(run)
    assert check_names(checks, "fail") == []
    assert check_names(checks, "warn") == ["status"] + ["certificate"] * (stop_after < 6)
    assert "the run is preempted, not complete: only what exists so far is checked" in [
        c.message for c in checks
    ]
    assert "checkpoints" in check_names(checks, "ok")


def test_run_that_never_started_passes_with_warnings(original: Path, tmp_path: Path) -> None:
    run = tmp_path / original.name
    run.mkdir()
    shutil.copy(original / "math.json", run)
    write_json(
        run / "status.json", {"state": "created", "message": "", "exit_code": 0, "attempt": 0}
    )
    checks = verify_run(run)
    assert (
        check_names(checks, "warn") == ["status", "annotations"]
        and check_names(checks, "fail") == []
    )


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_folder_without_math_json_is_not_verified(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(
        DataError, match=rf"{name} is not a run directory: it has no math\.json; give a folder"
    ):
        verify_run(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('"seed": 42', '"seed": 43'),
            r"the manifest says \w{10}; it was edited",
        ),
        (lambda text: text[:40], "math.json cannot be read"),
        (lambda text: text.replace('"schema": 2', '"schema": 9'), "has schema 9"),
    ],
)
def test_damaged_math(run: Path, change: Edit, message: str) -> None:
    edit(run / "math.json", change)
    failed = failures(run)
    # What ran is still told by the manifest.
    assert re.search(message, failed["math"]) and "steps" not in failed


def test_folder_name_holds_the_hash_of_math(run: Path) -> None:
    place = run
    for end in (".old2", ".replay1", ".old1.replay12", ".replay1.replay1"):
        place = place.rename(run.with_name(f"{run.name}{end}"))
        assert {check.state for check in verify_run(place)} == {"ok"}, end
    renamed = place.rename(run.with_name("mine"))
    assert [check.name for check in verify_run(renamed) if check.state == "warn"] == ["math"]
    other = renamed.rename(run.with_name("made-0123456789"))
    assert "the folder's name says 0123456789" in failures(other)["math"]


def test_missing_math(run: Path) -> None:
    (run / "math.json").unlink()
    assert f"{run}/math.json is missing" in failures(run)["math"]


def test_complete_run_without_a_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()
    failed = failures(run)
    assert (
        list(failed) == ["manifest"]
        and "manifest.json is missing although the run is complete" in failed["manifest"]
    )


def test_edited_manifest(run: Path) -> None:
    write_json(run / "manifest.json", {**read_json(run / "manifest.json"), "recipe": "another"})
    assert "its own hash does not fit its content: it was edited" in failures(run)["manifest"]


def test_manifest_of_another_run(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(world, tmp_path / "other", recipe={"seed": 7})
    shutil.copy(other / "manifest.json", run)
    assert {"math", "steps", "init", "outputs"} <= set(failures(run))


def test_manifest_of_an_unfinished_attempt(run: Path) -> None:
    edit_manifest(run, state="running")
    assert "of an unfinished attempt" in failures(run)["manifest"]


@pytest.mark.parametrize("name", ["execution", "environment"])
def test_edited_execution_or_environment(run: Path, name: str) -> None:
    path = run / "attempts" / "0001" / f"{name}.json"
    write_json(path, {**read_json(path), "python": "3.99"})
    assert list(failures(run)) == [name]
    path.unlink()
    assert check_names(verify_run(run), "warn") == [name]


def test_damaged_environment_of_an_earlier_attempt(world: Path, tmp_path: Path) -> None:
    run = train(world, tmp_path, stop_after=3)
    RunDir(run).new_attempt(Execution())
    edit(run / "attempts" / "0001" / "environment.json", lambda text: text[:20])
    failed = failures(run)
    assert list(failed) == ["attempts"]
    assert "0001/environment.json cannot be read" in failed["attempts"]
    with pytest.raises(DataError, match=r"0001/environment\.json cannot be read"):
        read_run(run).intact()


def test_status_that_was_edited_or_lost_fails(run: Path) -> None:
    status = read_json(run / "status.json")
    write_json(run / "status.json", {**status, "attempt": 2})
    assert "counts 2 attempts, the manifest 1" in failures(run)["attempt"]
    write_json(run / "status.json", {**status, "state": "perfect"})
    assert "status.json: state: Input should be 'created'" in failures(run)["status"]
    (run / "status.json").unlink()
    assert "status.json is missing" in failures(run)["status"]


def test_attempt_without_a_manifest_yet(world: Path, tmp_path: Path) -> None:
    run = train(world, tmp_path, stop_after=3)
    RunDir(run).new_attempt(Execution(world_size=2))
    assert failures(run) == {}


@pytest.mark.parametrize(
    ("name", "check"), [("connector.safetensors", "outputs"), ("init.safetensors", "init")]
)
def test_flipped_byte_in_a_weight_file(run: Path, name: str, check: str) -> None:
    flip_byte(run / name, -1)
    failed = failures(run)
    assert list(failed) == [check] and f"{run}/{name} was changed" in failed[check]
    (run / name).unlink()
    assert f"{run}/{name} is missing" in failures(run)[check]


def test_copy_elsewhere_passes(original: Path, world: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(original, tmp_path / "archive" / original.name))
    copy_world(world, tmp_path / "unused")
    assert failures(moved) == {}
