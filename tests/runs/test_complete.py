"""Complete runs: all that they recorded is there, and nothing that only served to continue."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError
from densekit.files import durable
from densekit.launch.listing import list_runs
from densekit.runs.complete import DONE, check_complete, drop_checkpoints, tidy
from densekit.runs.layout import CONNECTOR_FILE, RunDir
from densekit.runs.manifest import MANIFEST_FILE
from tests.support.audit import edit_manifest
from tests.support.runs import flip_byte, make_world, position_after, train, write_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has just become complete: its checkpoints are still there."""
    run = train(make_world(tmp_path / "world"), tmp_path / "runs")
    write_checkpoint(run, position_after(run, 3))
    write_checkpoint(run)
    return RunDir(run)


def failed(run: RunDir) -> list[str]:
    return [check.message for check in verify_run(run.path) if check.state == "fail"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("operation", [0, 1])
def test_a_kill_while_checkpoints_are_removed_leaves_a_run_that_verifies(
    run: RunDir, operation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the rename, and after it reached the disk; the next `ls` or start removes the rest."""
    left = [operation]

    def kill(name: str, path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    monkeypatch.setattr(durable, "observer", kill)
    with pytest.raises(Killed):
        drop_checkpoints(run)
    monkeypatch.setattr(durable, "observer", None)
    assert (run.path / DONE).is_dir() and not run.checkpoints.exists() and not failed(run)
    (listed,) = list_runs(run.path.parent)
    assert listed.state == "complete" and not (run.path / DONE).exists()
    assert not failed(run)


def test_checkpoints_beside_a_complete_run_are_removed(run: RunDir) -> None:
    """Killed before the rename, or, in 0.1.0, while the files were removed one by one."""
    (run.checkpoints / "step-00000003" / "checkpoint.json").unlink()
    assert failed(run)
    tidy(run)
    assert not run.checkpoints.exists() and not failed(run)


def test_checkpoints_of_a_run_that_only_says_it_is_complete_stay(tmp_path: Path) -> None:
    stopped = RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs", stop_after=3))
    stopped.set_status("complete")
    list_runs(stopped.path.parent)
    assert len(list(stopped.checkpoints.iterdir())) == 1


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped": (lambda run: flip_byte(run / CONNECTOR_FILE, -1), f"{CONNECTOR_FILE} was changed"),
    "gone": (lambda run: (run / CONNECTOR_FILE).unlink(), f"{CONNECTOR_FILE} is missing"),
    "no manifest": (lambda run: (run / MANIFEST_FILE).unlink(), "manifest.json is missing"),
    "null": (lambda run: (run / MANIFEST_FILE).write_text("null"), "must hold a JSON object"),
    "edited": (lambda run: flip_byte(run / MANIFEST_FILE, 40), "manifest.json"),
    "unfinished": (lambda run: edit_manifest(run, state="running"), "of an unfinished attempt"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_complete_run_that_lacks_what_it_trained_is_refused(run: RunDir, name: str) -> None:
    """A next stage would start from it."""
    check_complete(run)
    damage, message = DAMAGE[name]
    damage(run.path)
    with pytest.raises(DataError, match=message):
        check_complete(run)
    tidy(run)
    assert run.checkpoints.is_dir()
