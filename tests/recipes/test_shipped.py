"""The recipes that ship: each loads, says where its numbers come from, and is the paper's row."""

import re
from pathlib import Path

import pytest
import yaml

from densekit.recipes.load import RECIPES_DIR, load_recipe, recipe_names
from densekit.spec.part import has_field
from densekit.spec.recipe import Recipe

ALL = recipe_names()


def test_recipe_names_leave_out_the_files_beside_them() -> None:
    assert {"tiny_stage1", "tiny_stage2", "vicuna7b_clip_stage1", "vicuna7b_clip_stage2"} <= {*ALL}
    assert not {"paper", "revisions"} & {*ALL}


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_loads_under_its_own_name(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    "name", [path.relative_to(RECIPES_DIR).as_posix() for path in RECIPES_DIR.rglob("*.yaml")]
)
def test_every_source_names_a_field(name: str) -> None:
    values = yaml.safe_load((RECIPES_DIR / name).read_text(encoding="utf-8"))
    recipe = load_recipe(Path(name).stem if Path(name).stem in ALL else ALL[0])
    missing = [field for field in values.get("sources", {}) if not has_field(recipe, field)]
    assert not missing


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("tiny")])
def test_paper_recipe_names_its_row_and_its_sources(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.paper
    sourced = (
        "optimizer.learning_rate",
        "global_batch_size",
        "reference",
        "seed",
        "data.annotations",
        "data.template",
    )
    assert not [field for field in sourced if field not in recipe.sources]


@pytest.mark.parametrize("name", ALL)
def test_needed_recipe_is_a_shipped_stage_1(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.needs is None) == (recipe.stage == 1)
    if recipe.needs:
        assert load_recipe(recipe.needs).stage == 1


def test_headline_recipes_are_the_papers_rows() -> None:
    first, second = load_recipe("vicuna7b_clip_stage1"), load_recipe("vicuna7b_clip_stage2")
    for recipe in (first, second):
        assert recipe.connector.groups == (tuple(range(12)), tuple(range(12, 24)))
        assert recipe.optimizer.max_grad_norm is None
        assert (recipe.optimizer.warmup_ratio, recipe.seed, recipe.semantics) == (
            0.03,
            42,
            "faithful",
        )
    assert (first.global_batch_size, first.optimizer.learning_rate, first.data.template) == (
        256,
        1e-3,
        "plain",
    )
    assert (second.global_batch_size, second.optimizer.learning_rate, second.data.template) == (
        128,
        2e-5,
        "v1",
    )
    assert (first.data.image_aspect_ratio, second.data.image_aspect_ratio) == ("square", "pad")
    assert (first.data.group_by_modality_length, second.data.group_by_modality_length) == (
        False,
        True,
    )


def test_recipes_named_in_docs_exist() -> None:
    root = RECIPES_DIR.parent
    named = {
        name
        for path in (root / "README.md", root / "compose.yaml", *(root / "docs").glob("*.md"))
        for name in re.findall(
            r"\b[a-z0-9_]+_stage[12](?:_lora)?(?:_v100)?\b", path.read_text(encoding="utf-8")
        )
    }
    parents = {path.stem for path in (RECIPES_DIR / "base").glob("*.yaml")}
    assert "vicuna7b_stage1" in named
    assert named - set(ALL) - parents <= {"my_stage1", "my_stage2"}, (
        "the examples of recipes of one's own"
    )


def test_has_field_follows_dotted_names() -> None:
    recipe: Recipe = load_recipe("tiny_stage1")
    assert (
        has_field(recipe, "seed")
        and has_field(recipe, "optimizer.learning_rate")
        and has_field(recipe, "reference")
    )
    assert not has_field(recipe, "optimizer.lerning_rate")
    assert not has_field(recipe, "seed.deeper")
    assert not has_field(recipe, "")
