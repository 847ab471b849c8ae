"""Comparing two runs: equal ones, tolerances, lengths, overflows, and the JSON."""

import json
import shutil
from pathlib import Path

import pytest

from densekit.audit.diff.compare import compare_runs
from densekit.errors import UsageError
from tests.support.audit import edit_metrics, explaining, where
from tests.support.runs import STEPS, train

# Equal runs


def test_identical_runs_have_no_divergence(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path))
    assert found.equal and found.first_bit_difference is None and found.steps == STEPS
    assert found.report()[2:] == ["bitwise equal over 6 steps", "runs are identical"]


def test_another_world_size_changes_rounding_only(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(world, tmp_path, execution={"world_size": 2, "micro_batch_size": 2, "workers": 3})
    found = compare_runs(run, other)
    assert found.equal and explaining(found) == []
    assert found.report()[2:] == [
        "equal within 1e-05 over 6 steps; first bit difference at step 1",
        "runs do not diverge",
        "also differs (unlikely cause): execution differs: world_size 1 and 2; micro_batch_size 1 "
        "and 2; this changes rounding only (execution)",
    ]


def test_differences_without_effect_come_last(run: Path, second: Path, tmp_path: Path) -> None:
    (second / "models" / "lm" / "README.md").write_text("hello", encoding="utf-8")
    other = train(
        second,
        tmp_path / "runs",
        recipe={"name": "renamed"},
        environment={"packages": {"pytest": "9.1"}},
    )
    found = compare_runs(run, other)
    assert found.equal and {cause.relevance for cause in found.explanations} == {"unlikely"}
    assert found.report()[3:] == [
        "runs are identical",
        'also differs (unlikely cause): `name` differs: "made" and "renamed" (math.json, '
        "recipe.name)",
        *[line for line in found.report() if "README.md" in line],
        "also differs (unlikely cause): other packages: pytest 9.0.0 and 9.1 (environment, "
        "packages)",
    ]


def test_preempted_run_diverges_where_it_stopped(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, stop_after=4))
    assert where(found) == ("length", 5) and (found.divergences[0].a, found.divergences[0].b) == (
        6,
        4,
    )
    assert explaining(found) == ["b is preempted after 4 steps: asked to stop"]


def test_more_epochs_diverge_in_schedule_and_length(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"optimizer": {"epochs": 2}}))
    assert where(found) == ("lr", 2) and ("length", 7) in [
        (divergence.kind, divergence.step) for divergence in found.divergences
    ]
    assert explaining(found) == ["`optimizer.epochs` differs: 1 and 2"]


def test_overflow_is_a_divergence(run: Path, copy: Path) -> None:
    edit_metrics(copy, 3, grad_norm=None, updated=False, overflows=1)
    found = compare_runs(run, copy)
    assert [(divergence.kind, divergence.step) for divergence in found.divergences] == [
        ("grad_norm", 3),
        ("updated", 3),
    ]
    assert found.divergences[0].b is None
    assert (
        found.divergences[1]
        .describe()
        .endswith("updated True, overflows 0 and updated False, overflows 1")
    )


@pytest.mark.parametrize(
    ("field", "a", "b", "equal"),
    [
        ("loss", 0.5, 0.500009, True),
        ("loss", 0.5, 0.500011, False),
        ("loss", 100.0, 100.0009, True),
        ("loss", 100.0, 100.0011, False),
        ("grad_norm", 100.0, 100.0009, True),
        ("grad_norm", 0.01, 0.010001, False),
        ("grad_norm", 0.0, 0.0, True),
        ("grad_norm", 0.0, 1e-9, False),
        ("grad_norm", None, None, True),
        ("grad_norm", 1.0, None, False),
        ("loss", float("nan"), float("nan"), True),
        ("loss", float("inf"), 1.0, False),
        ("loss", float("nan"), 1.0, False),
        ("lr", 1e-3, 1e-3 * (1 + 1e-12), True),
        ("lr", 1e-3, 1e-3 * (1 + 1e-8), False),
    ],
)
def test_tolerance_of_each_number(
    run: Path, copy: Path, tmp_path: Path, field: str, a: float | None, b: float | None, equal: bool
) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other" / copy.name))
    edit_metrics(copy, 3, **{field: a})
    edit_metrics(other, 3, **{field: b})
    found = compare_runs(copy, other)
    assert found.equal == equal
    assert found.first_bit_difference == (None if repr(a) == repr(b) else 3)
    if not equal:
        assert where(found) == (field, 3)


def test_tolerance_makes_near_losses_equal_and_must_be_a_number(run: Path, copy: Path) -> None:
    edit_metrics(copy, 2, loss=5.0)
    assert not compare_runs(run, copy).equal
    assert compare_runs(run, copy, tolerance=1.0).equal
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="tolerance"):
            compare_runs(run, copy, tolerance=tolerance)


def test_comparison_as_json_names_divergences_and_explanations(
    run: Path, world: Path, tmp_path: Path
) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"seed": 7}))
    values = json.loads(json.dumps(found.as_json()))
    assert (
        values["schema"] == 2
        and values["equal"] is False
        and values["steps"] == 6
        and values["divergences"][0]["kind"] == "loss"
    )
    assert values["explanations"][0] == {
        "relevance": "explains",
        "topic": "seed",
        "message": "seed differs: 42 and 7",
        "evidence": "math.json, recipe.seed",
    }
