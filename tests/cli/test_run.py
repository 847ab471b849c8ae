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
        (("slurm", "--container", "pyxis"), "say which image with --image"),
        (("docker", "--nodes", "2", "--gpus", "4"), "the docker launcher knows this host only"),
        (("local", "--nodes", "2", "--gpus", "4"), "the local launcher knows this host only"),
        (("local", "--image", "mine"), "the local launcher has no container"),
        (
            ("docker", "--sbatch", "partition=gpu"),
            "are for --launcher slurm; this run takes docker",
        ),
        (("local", "--queue-minutes", "5"), "are for --launcher slurm; this run takes local"),
    ],
)
def test_print_refuses_what_would_be_refused(
    run_cli: Cli, options: tuple[str, ...], message: str
) -> None:
    found = run_cli("run", "tiny_stage1", "--print", "--launcher", *options)
    assert found.code == 2 and message in found.err


def test_run_trains_where_it_is_told(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    told = run_cli("run", "tiny_stage2", "--runs-dir", "r", "--data-dir", "d", "--gpus", "2")
    assert (told.code, told.err) == (0, "")
    assert re.search(
        r"tiny_stage1: training in r/tiny_stage1-[0-9a-f]{10} on 2 CPU process", told.out
    )
    (execution,) = (tmp_path / "r").glob("tiny_stage2-*/attempts/0001/execution.json")
    values = json.loads(execution.read_text(encoding="utf-8"))
    assert values["roots"]["data"] == str(tmp_path / "d")
    assert "already complete" in run_cli("run", "tiny_stage2", "--runs-dir", "r").out
    assert (
        "the earlier run is now r/tiny_stage2"
        in run_cli("run", "tiny_stage2", "--runs-dir", "r", "--force").out
    )


@pytest.mark.parametrize("code", [1, 2, 3, 130])
def test_run_ends_as_its_trainer_did(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(local, "command", trainer(f"status('failed', 'why', {code}); sys.exit(1)"))
    assert run_cli("run", "tiny_stage1").code == code
