"""`densekit lint`: every YAML file of a folder, as it would be loaded."""

from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.recipes.lint import lint
from densekit.recipes.yaml_lines import RECIPES_DIR
from densekit.spec.check import Check

SOURCES = "sources: {optimizer.learning_rate: tried on a laptop}\n"


def write(folder: Path, name: str, text: str) -> None:
    """A file below a folder."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def by_name(checks: list[Check]) -> dict[str, tuple[str, str]]:
    """State and message by file."""
    return {check.name: (check.state, check.message) for check in checks}


def test_what_ships_has_no_failure() -> None:
    checks = lint(RECIPES_DIR)
    assert not [check for check in checks if check.state != "ok"]
    assert {"paper.yaml", "revisions.yaml"} <= {check.name for check in checks}


def test_each_file_is_judged_by_itself(tmp_path: Path) -> None:
    mine = f"extends: tiny_stage1\ntitle: mine\noptimizer: {{learning_rate: 1.0e-3}}\n{SOURCES}"
    write(tmp_path, "good.yaml", mine)
    write(tmp_path, "deep/bad.yml", "extends: tiny_stage1\noptimizer: {learning_rat: 1}\n")
    write(tmp_path, "broken.yaml", "extends: [\n")
    write(tmp_path, "untold.yaml", "extends: vicuna7b_stage1\nseed: 7\n")
    write(tmp_path, "compose.yaml", "services: {}\n")
    write(tmp_path, "needy.yaml", "extends: tiny_stage2\nneeds: nobody\n")
    write(tmp_path, ".cache/hidden.yaml", "extends: [\n")
    write(tmp_path, "readme.md", "extends: [\n")
    found = by_name(lint(tmp_path))
    assert found["good.yaml"] == ("ok", "stage 1: mine")
    assert found["deep/bad.yml"][0] == "fail"
    assert "bad.yml:2" in found["deep/bad.yml"][1] and "learning_rate" in found["deep/bad.yml"][1]
    assert found["broken.yaml"][0] == "fail" and "not valid YAML" in found["broken.yaml"][1]
    assert found["untold.yaml"][0] == "warn" and "no source for seed" in found["untold.yaml"][1]
    assert found["compose.yaml"][0] == "warn" and "no recipe" in found["compose.yaml"][1]
    assert found["needy.yaml"][0] == "fail" and "nobody" in found["needy.yaml"][1]
    assert len(found) == 6


def test_a_base_is_checked_with_its_heirs(tmp_path: Path) -> None:
    write(tmp_path, "base/part.yaml", "stage: 1\nseed: 7\n")
    (alone,) = lint(tmp_path)
    assert alone.state == "fail"
    write(tmp_path, "whole.yaml", "extends: tiny_stage1\nseed: 8\n")
    write(tmp_path, "base/part.yaml", "extends: tiny_stage2\nneeds: null\nassets: null\n")
    write(tmp_path, "heir.yaml", "extends: base/part.yaml\nstage: 1\n")
    found = by_name(lint(tmp_path))
    assert found["base/part.yaml"] == ("ok", "a base: checked with heir.yaml"), found


def test_one_file_can_be_given(tmp_path: Path) -> None:
    write(tmp_path, "untold.yaml", "extends: vicuna7b_stage1\nseed: 7\n")
    (check,) = lint(tmp_path / "untold.yaml")
    assert (check.name, check.state) == ("untold.yaml", "warn")


@pytest.mark.parametrize("name", ["nothing", "."])
def test_no_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="give a folder of recipes, or one file"):
        lint(tmp_path / name)
