"""`--log`: which words it takes, and what is said where a package is missing."""

import pytest

from densekit.errors import UsageError
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.runs import trackers
from densekit.runs.trackers import parse_trackers, require_trackers
from densekit.spec.execution import Execution, ExecutionRequest


def test_words() -> None:
    assert parse_trackers(None) == parse_trackers("") == ()
    assert parse_trackers("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    with pytest.raises(UsageError, match="--log mlflow: give tensorboard or wandb, or both"):
        parse_trackers("tensorboard,mlflow")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else object())
    require_trackers(["tensorboard"])
    with pytest.raises(UsageError, match=r"--log tensorboard,wandb: .* `pip install wandb`"):
        require_trackers(["tensorboard", "wandb"])


def test_an_execution_says_where_figures_go_only_if_they_go_anywhere() -> None:
    recipe = load_recipe("tiny_stage1")
    plan = make_plan(recipe, ExecutionRequest(trackers=("wandb",)))
    values = plan.execution.as_json()
    assert values["trackers"] == ["wandb"]
    assert Execution.from_json(values, source="x").trackers == ("wandb",)
    assert "trackers" not in make_plan(recipe).execution.as_json()
