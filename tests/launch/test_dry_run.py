"""`densekit run --print`: the commands of every stage, with nothing started and nothing made."""

import re
from pathlib import Path
from typing import Any

import pytest

from densekit.launch.dry_run import show
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.files import names
from tests.support.launching import A100, cards, put_gpus_on_path

pytestmark = pytest.mark.usefixtures("bare_host")

PAPER = "vicuna7b_clip_stage2"


def commands(folder: Path, launcher: Launcher, *recipes: str, **ways: Any) -> str:
    lines = show(
        recipes or ["tiny_stage2"],
        overrides=(),
        runs_dir=folder / "runs",
        roots=Roots(data=folder / "data", models=folder / "models", cache=folder / "cache"),
        request=ExecutionRequest(**ways),
        launcher=launcher,
    )
    return "\n".join(lines)


def test_print_makes_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = commands(tmp_path, Local(), world_size=2)
    torchrun = r"densekit.train.torchrun --standalone --nproc-per-node 2 -m densekit train"
    assert len(re.findall(rf"{torchrun} \S+-[0-9a-f]{{10}}", text)) == 2
    text = commands(tmp_path, Docker())
    assert text.count("docker run --rm --name densekit-tiny_stage") == 2
    assert text.count(" densekit:cpu python -m") == 2
    first = re.search(r"train (\S+)", text)
    assert first and f"source={first[1]},target={first[1]}" in text
    assert "note: no container engine answers" in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.ranks
def test_missing_data_leaves_the_run_hash_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 8))
    text = commands(tmp_path, Docker(), PAPER, world_size=8, device="cuda")
    assert """--gpus '"device=0,1,2,3,4,5,6,7"'""" in text
    assert "densekit:a100" in text and f"{PAPER}-HASH" in text
    assert "until then the run's hash is not known" in capsys.readouterr().err
    assert names(tmp_path) == ["smi"]


def test_several_recipes_print_their_shared_stage_once_as_an_array(tmp_path: Path) -> None:
    recipes = ("tiny_stage2", "tiny_stage2_lora", "tiny_stage2")
    first, second = commands(tmp_path, Slurm(), *recipes).split("sbatch <<'END'\n")[1:]
    assert "#SBATCH --array=0-0\n" in first
    assert "#SBATCH --array=0-1\n" in second and "#SBATCH --dependency=afterok:" in second
    assert commands(tmp_path, Local(), *recipes).count("-m densekit train") == 4
    assert names(tmp_path) == []
