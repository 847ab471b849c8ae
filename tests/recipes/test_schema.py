"""The JSON Schema that editors get: it takes every recipe that ships, and refuses slips."""

from copy import deepcopy
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from densekit.recipes.load import recipe_names
from densekit.recipes.schema import schema
from densekit.recipes.yaml_lines import RECIPES_DIR

RECIPE = Draft202012Validator(schema("recipe"))
WHOLE = {
    "title": "mine",
    "stage": 1,
    "models": {"language_model": "models:a", "vision_tower": "models:b"},
    "connector": {"kind": "none"},
    "data": {
        "annotations": "data:a.json",
        "images": "data:images",
        "template": "v1",
        "image_aspect_ratio": "pad",
    },
    "optimizer": {"learning_rate": 1e-3},
    "global_batch_size": 4,
    "reference": {"gpus": 1, "per_device_batch_size": 4},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """WHOLE with one value changed; None takes it out."""
    recipe: dict[str, Any] = deepcopy(WHOLE)
    *sections, name = path.split(".")
    part = recipe
    for section in sections:
        part = part[section]
    part.pop(name, None)
    if value is not None:
        part[name] = value
    return recipe


def test_it_is_a_schema() -> None:
    for kind in ("recipe", "site"):
        Draft202012Validator.check_schema(schema(kind))


def test_every_recipe_that_ships_fits() -> None:
    for name in recipe_names():
        text = (RECIPES_DIR / f"{name}.yaml").read_text(encoding="utf-8")
        errors = list(RECIPE.iter_errors(yaml.load(text, Loader=yaml.CSafeLoader)))
        assert not errors, f"{name}: {errors[0].message}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stage", 3),
        ("stage", None),
        ("optimizers", {}),
        ("optimizer.learning_rat", 1),
        ("optimizer.learning_rate", "fast"),
        ("optimizer.betas", [0.9]),
        ("data.image_aspect_ratio", "round"),
        ("reference.gpus", 0),
        ("semantics", "mostly"),
        ("extends", 7),
    ],
)
def test_slips_are_refused(path: str, value: Any) -> None:
    assert RECIPE.is_valid(WHOLE)
    assert not RECIPE.is_valid(changed(path, value))


def test_a_recipe_that_extends_another_may_be_short() -> None:
    assert RECIPE.is_valid({"extends": "tiny_stage1", "optimizer": {"weight_decay": 0.1}})
    assert not RECIPE.is_valid({"extends": "tiny_stage1", "optimizer": {"decay": 0.1}})
    assert not RECIPE.is_valid({"optimizer": {"weight_decay": 0.1}})


def test_every_field_says_what_it_means() -> None:
    for kind in ("recipe", "site"):
        found = schema(kind)
        parts = [found, *found.get("$defs", {}).values()]
        silent = [
            name
            for part in parts
            for name, field in part["properties"].items()
            if not (field.get("description") or "$ref" in field)
        ]
        assert not silent, silent


def test_settings_of_a_site_fit() -> None:
    site = Draft202012Validator(schema("site"))
    assert site.is_valid({"runs_dir": "/scratch/runs", "launcher": "slurm", "keep": 3})
    assert not site.is_valid({"run_dir": "/scratch/runs"})
    assert not site.is_valid({"keep": "many"})
