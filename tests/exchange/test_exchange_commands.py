"""`densekit import` and `export` from the command line, on a run and on an official folder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks


def test_a_run_answers_alike_in_stock_transformers(workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.densekit(
        *("export", "tiny_stage2", "--format", "llava-hf", "--to", str(tmp_path / "hf")),
        *("--launcher", "local"),
    )
    assert done.returncode == 0, done.stderr
    assert "checked in a fresh process" in done.stdout and "greedy ids equal" in done.stdout
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]


@pytest.mark.slow
def test_a_run_comes_back_from_the_official_format(workplace: Workplace, tmp_path: Path) -> None:
    place = ("--launcher", "local")
    done = workplace.densekit(
        "export", "tiny_stage2", "--format", "official", "--to", str(tmp_path / "llava-x"), *place
    )
    assert done.returncode == 0, done.stderr
    tiny = workplace.root / ".cache" / "densekit" / "tiny"
    done = workplace.densekit(
        *("import", str(tmp_path / "llava-x"), "--tower", str(tiny / "vision_tower")),
        *("--to", str(tmp_path / "back"), *place),
    )
    assert done.returncode == 0, done.stderr
    (run,) = (workplace.root / "runs").glob("tiny_stage2-*")
    ours = load_file(tmp_path / "back" / "connector.safetensors")
    theirs = load_file(run / "connector.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
