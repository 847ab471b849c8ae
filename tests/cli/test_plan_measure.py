"""`densekit plan --measure`: what it prints, and what it refuses before anything is started."""

import json
from typing import Any

import pytest

from densekit.launch import measuring
from densekit.planner.measured import Measured
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.planner.request import with_hardware
from densekit.planner.time import Interval
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from tests.cli.test_plan_screen import LINES, height
from tests.support.command_line import Cli
from tests.support.launching import A100, cards, put_gpus_on_path

TAKEN = Measured(
    on="on 8 x cuda: NVIDIA A100-SXM4-80GB",
    steps=20,
    warm_up=10,
    step_seconds=2.34567,
    step_interval=Interval(low=2.2, high=2.5),
    run_steps=5198,
    hours=Interval(low=2.86, high=3.97),
    peak_memory_gib=61.23,
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 8 GPUs are said to have measured."""

    def measure(name: str, *, request: ExecutionRequest, **rest: Any) -> tuple[Plan, Measured]:
        asked = request.model_copy(update={"gpu": "a100-80g", "world_size": 8})
        recipe = load_recipe(name)
        filled, row = with_hardware(recipe, asked)
        return make_plan(recipe, filled, hardware=row), TAKEN

    monkeypatch.setattr(measuring, "measure", measure)


@pytest.mark.usefixtures("taken")
def test_what_was_measured_stands_beside_what_was_estimated(run_cli: Cli) -> None:
    found = run_cli("plan", "vicuna7b_clip_stage2", "--measure", "20", "--price", "2")
    assert found.code == 0 and height(found.out) <= LINES
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in found.out.splitlines()}
    assert lines["measured"] == (
        "2.35 s/step (2.2 to 2.5) in steps 11 to 20 of 5198 on 8 x cuda: NVIDIA A100-SXM4-80GB; "
        "61.2 GiB at most"
    )
    assert lines["hours"].startswith("2.9 to 4.0 (22.9 to 31.8 GPU-hours); estimated: ")
    assert lines["cost"] == "45.8 to 63.5"
    assert found.out.splitlines()[-1].endswith("; 2.9 to 4.0 hours")
    assert (
        "95% interval by Student's t of 10 steps"
        in run_cli("plan", "vicuna7b_clip_stage2", "--measure", "20", "--why").out
    )


@pytest.mark.usefixtures("taken")
def test_programs_read_it_under_a_key_of_its_own(run_cli: Cli) -> None:
    found = json.loads(run_cli("plan", "vicuna7b_clip_stage2", "--measure", "20", "--json").out)
    assert found["hours"] == found["measured"]["hours"] == {"low": 2.86, "high": 3.97}
    assert found["measured"]["estimated_hours"]["low"] > 0
    assert "measured" not in json.loads(run_cli("plan", "vicuna7b_clip_stage2", "--json").out)


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "1e308"])
@pytest.mark.parametrize("options", [(), ("--measure", "6")])
def test_a_price_that_is_none(run_cli: Cli, price: str, options: tuple[str, ...]) -> None:
    found = run_cli("plan", "tiny_stage1", *options, "--price", price)
    assert (found.code, found.out) == (2, "") and "for an hour, from 0 to" in found.err


@pytest.mark.parametrize("steps", ["0", "-1", "5", "100000"])
def test_a_number_of_steps_that_says_nothing(run_cli: Cli, steps: str) -> None:
    found = run_cli("plan", "tiny_stage1", "--measure", steps)
    assert (found.code, found.out) == (2, "")
    assert f"--measure {steps}: give a number of steps from 6 to 1000" in found.err


@pytest.mark.ranks
def test_hardware_that_is_not_here(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for options, message in (
        (["--gpu", "a100-80g"], "--gpu a100-80g: this run trains on the CPU"),
        (["--device", "cuda"], "no GPU"),
        (["--nodes", "2", "--gpus", "2"], "trains on this host only"),
    ):
        found = run_cli("plan", "tiny_stage1", "--measure", "6", *options)
        assert found.code == 2 and message in found.err, found.err
    found = run_cli("plan", "vicuna7b_clip_stage1", "--measure", "6")
    assert found.code == 3 and found.err.startswith("launcher local (no GPU on this host")
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 2))
    found = run_cli("plan", "vicuna7b_clip_stage1", "--measure", "6", "--gpu", "h200")
    assert found.code == 2 and "this host has a100-80g" in found.err
    found = run_cli("plan", "vicuna7b_clip_stage1", "--measure", "6", "--launcher", "local")
    assert found.code == 2, "--launcher is no option of plan"
    found = run_cli("plan", "vicuna7b_clip_stage1", "--measure", "6")
    assert found.code == 3 and "densekit fetch" in found.err, "models and data are looked for"
    assert not [path for path in tmp_path.iterdir() if path.name not in ("smi", ".cache")]
