"""A plan without --why is one screen of 24 lines and 80 columns, its verdict the last of them."""

from pathlib import Path

import pytest

from densekit.cli.output import wrapped
from densekit.recipes.load import recipe_names
from tests.support.command_line import Cli

LINES, COLUMNS = 24, 80
SAMPLED = [name for name in recipe_names() if not name.startswith("tiny_easy_vqa")][::9]
"""Without those whose models are made first (`make easy-vqa`)."""
LONGEST = "vicuna13b_clip_convnext_mgm_stage2"
"""Of all recipes it needs the most lines."""


def height(out: str) -> int:
    """Lines on a terminal, the prompt below them among them."""
    return 1 + sum(len(wrapped(line, COLUMNS)) for line in out.splitlines())


@pytest.mark.parametrize("recipe", SAMPLED)
def test_little_memory_many_nodes_and_a_price(run_cli: Cli, recipe: str) -> None:
    planned = run_cli("plan", recipe, "--gpu", "rtx4090", "--gpus", "16", "--price", "2")
    if planned.code == 2:  # nothing fits: one sentence
        planned = run_cli("plan", recipe, "--gpu", "b200", "--gpus", "8", "--price", "2")
    assert planned.code == 0, planned.err
    assert height(planned.out) <= LINES, planned.out
    assert planned.out.splitlines()[-1].startswith("fits: ")


@pytest.mark.parametrize("recipe", ["vicuna7b_clip_stage2", LONGEST])
def test_with_the_table_of_what_else_fits(run_cli: Cli, recipe: str) -> None:
    planned = run_cli("plan", recipe, "--price", "2").out
    assert height(planned) <= LINES
    assert "what fits, fewest GPU-hours first" in planned
    everything = run_cli("plan", recipe, "--price", "2", "--why").out
    assert len(everything.splitlines()) > 2 * len(planned.splitlines())
    assert everything.splitlines()[-1] == planned.splitlines()[-1]


def test_what_the_plan_depends_on_is_on_it(run_cli: Cli, tmp_path: Path) -> None:
    text = "extends: tiny_stage1\ndata: {annotations: 'data:a.json', samples: null}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    planned = run_cli("plan", "mine.yaml").out
    assert "note: steps unknown: the annotation file is not here" in planned
    assert "order and loss weights follow" not in planned
    assert "faithful L1, U8, U9" in planned
