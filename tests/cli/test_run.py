"""`densekit run`: what it hands on, and how it ends."""

import json
import re
from pathlib import Path

import pytest

from densekit.launch.launchers import local
from tests.support.command_line import Cli
from tests.support.launching import trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("slurm", "--container", "pyxis"), "name the image with --image"),
        (("docker", "--nodes", "2", "--gpus", "4"), "the docker launcher trains on this host only"),
        (("local", "--nodes", "2", "--gpus", "4"), "the local launcher trains on this host only"),
        (("local", "--image", "mine"), "--image: the local launcher does not take it"),
        (
            ("docker", "--sbatch", "partition=gpu"),
            "--sbatch: the docker launcher does not take it",
        ),
        (("local", "--queue-minutes", "5"), "--queue-minutes: the local launcher does not take it"),
    ],
)
def test_print_refuses_what_would_be_refused(
    run_cli: Cli, options: tuple[str, ...], message: str
) -> None:
    found = run_cli("run", "tiny_stage1", "--print", "--launcher", *options)
    assert found.code == 2 and message in found.err


@pytest.mark.ranks
def test_run_trains_resumes_and_retrains_in_its_folders(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    tiny = ("run", "tiny_stage2", "--no-evaluation", "--runs-dir", "r")
    result = run_cli(*tiny, "--data-dir", "d", "--gpus", "2")
    assert (result.code, result.err) == (0, "")
    assert re.search(
        r"tiny_stage1: training in r/tiny_stage1-[0-9a-f]{10} on 2 CPU process", result.out
    )
    (execution,) = (tmp_path / "r").glob("tiny_stage2-*/attempts/0001/execution.json")
    values = json.loads(execution.read_text(encoding="utf-8"))
    assert values["roots"]["data"] == str(tmp_path / "d")
    assert "already complete" in run_cli(*tiny).out
    forced = run_cli(*tiny, "--force").out
    assert "tiny_stage2: moved the earlier run aside to r/tiny_stage2-" in forced


@pytest.mark.ranks
@pytest.mark.parametrize("code", [1, 2, 3, 130])
def test_run_returns_the_exit_code_of_its_trainer(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(local, "command", trainer(f"status('failed', 'why', {code}); sys.exit(1)"))
    assert run_cli("run", "tiny_stage1").code == code
