"""The lines about the ledger: every key once, what is not followed, where they are shown."""

import pytest

from densekit.cli.recipes import show
from densekit.planner.planning import make_plan
from densekit.planner.report import lines
from densekit.recipes.load import load_recipe
from densekit.runs.results import Results, Summary
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import hardware
from densekit.spec.ledger import ledger_lines
from densekit.spec.types import Dtype
from densekit.train.report import report


def of(name: str, dtype: Dtype, *overrides: str) -> list[str]:
    return ledger_lines(load_recipe(name, overrides).math(), dtype)


def test_every_key_has_one_line() -> None:
    found = of("vicuna7b_clip_stage1", "fp16")
    assert [line.split()[:2] for line in found] == [
        ["L1", "faithful:"],
        ["U8", "faithful:"],
        ["U9", "faithful:"],
        ["L2", "faithful:"],
    ]
    assert not [line for line in of("vicuna7b_clip_stage1", "bf16") if line.startswith("L2")]
    fixed = of("vicuna7b_clip_stage1", "fp16", "semantics=fixed")
    assert all("fixed, the official behaviour is not followed: " in line for line in fixed)
    assert not {line.partition(": ")[2] for line in fixed} & {
        line.partition(": ")[2] for line in found
    }


def test_one_key_alone_is_not_followed() -> None:
    found = of("llama3_8b_stage2", "bf16")
    assert [line.split(":")[0] for line in found] == [
        "L1 fixed, the official behaviour is not followed",
        "U8 faithful",
        "U9 faithful",
        "U12 not followed (positions",
        "U13 not followed (initial_weights",
    ]
    followed = of("vicuna7b_stage2", "bf16", "positions=bf16", "initial_weights=bf16")
    assert [line.split(":")[0] for line in followed[3:]] == [
        "U12 followed (positions",
        "U13 followed (initial_weights",
    ]


def test_exact_positions_are_said_where_the_published_runs_had_coarse_ones() -> None:
    assert any(line.startswith("U12 not followed") for line in of("vicuna7b_stage2", "bf16"))
    for name, dtype in (("vicuna7b_stage2", "fp16"), ("vicuna7b_stage1", "bf16")):
        assert not [line for line in of(name, dtype) if line.startswith("U12")]


def test_plan_show_and_summary_have_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("vicuna7b_clip_stage2")
    request = ExecutionRequest(device="cuda", world_size=8)
    plan = make_plan(recipe, request, hardware=hardware("a100-80g"))
    expected = of("vicuna7b_clip_stage2", "bf16")
    assert plan.ledger == plan.as_json()["ledger"] == expected and len(expected) == 5
    planned = [line for line in lines(plan, None, {}, why=True) if line.startswith("  ledger")]
    assert [line.split(maxsplit=1)[1] for line in planned] == expected
    show("vicuna7b_clip_stage2")
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("#")] == [
        f"# ledger {line}" for line in expected
    ]
    assert f"ledger {expected[0]}" in report(Results(summary=Summary()), "x", expected)
