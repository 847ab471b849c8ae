"""Models are inspected once, before a run directory exists, or else in the trainer."""

from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.launch.launchers.inspection import found_problems
from densekit.launch.launchers.local import Local
from densekit.launch.model_check import check_models, read_parts
from densekit.recipes.load import load_recipe
from densekit.runs.model_verdicts import stage_parts
from densekit.spec.execution import Execution
from densekit.spec.model_parts import ModelParts
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from tests.support.launching import make_pair


class Inspecting(Local):
    """A launcher that finds what it is told to."""

    def __init__(self, *problems: str, environment: str | None = "torch 1") -> None:
        self.problems, self.environment = problems, environment
        self.inspected: list[ModelParts] = []

    def inspection_environment(self, execution: Execution) -> str | None:
        return self.environment

    def inspect(self, parts: ModelParts, execution: Execution) -> list[str]:
        self.inspected.append(parts)
        return list(self.problems)


@pytest.fixture
def chain(tmp_path: Path) -> list[Recipe]:
    make_pair(tmp_path / "mine")
    return [load_recipe(str(tmp_path / "mine" / name)) for name in ("one.yaml", "two.yaml")]


def check(chain: list[Recipe], folder: Path, launcher: Local) -> None:
    check_models(chain, Roots(cache=folder / "cache"), launcher, Execution())


def test_a_model_is_inspected_once_per_configuration_and_environment(
    tmp_path: Path, chain: list[Recipe]
) -> None:
    launcher = Inspecting()
    check(chain[:1], tmp_path, launcher)
    check(chain[:1], tmp_path, launcher)
    (parts,) = launcher.inspected
    assert parts.language_model == tmp_path / "mine" / "llm"
    launcher.environment = "torch 2"
    check(chain[:1], tmp_path, launcher)
    (tmp_path / "mine" / "llm" / "config.json").write_text('{"changed": 1}')
    check(chain[:1], tmp_path, launcher)
    assert len(launcher.inspected) == 3


def test_what_is_wrong_is_refused_each_time(tmp_path: Path, chain: list[Recipe]) -> None:
    launcher = Inspecting("a: no", "b: no")
    for _ in range(2):
        with pytest.raises(DataError, match="2 problems\nmodels:\n  - a: no\n  - b: no"):
            check(chain[:1], tmp_path, launcher)
    assert len(launcher.inspected) == 1


def test_models_that_the_kit_makes_are_not_inspected(tmp_path: Path) -> None:
    launcher = Inspecting("never")
    check([load_recipe("tiny_stage1"), load_recipe("tiny_stage2")], tmp_path, launcher)
    assert launcher.inspected == []


def test_where_the_packages_are_not_here_the_trainer_inspects(
    tmp_path: Path, chain: list[Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = Inspecting("never", environment=None)
    check(chain[:1], tmp_path, launcher)
    assert launcher.inspected == []
    assert "one: the models are inspected when the trainer starts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "out", "errors", "message"),
    [
        (2, b"", b"one\nlast line\n", "last line"),
        (0, b"not JSON", b"", "exit code 0"),
        (0, b"{}", b"", "exit code 0"),
        (-9, b"", b"", "exit code -9"),
    ],
)
def test_an_inspection_that_fails_says_so(
    code: int, out: bytes, errors: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=f"the models could not be inspected: {message}"):
        found_problems(code, out, errors)


def test_the_argument_of_the_process_is_read_back(chain: list[Recipe]) -> None:
    parts: Any = stage_parts(chain[0].math(), Roots())
    assert read_parts(parts.model_dump_json()) == parts
