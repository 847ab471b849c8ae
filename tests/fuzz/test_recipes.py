"""Recipes and `--set` of any content: each has a meaning, or is refused with its place."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from densekit.errors import DensekitError, UsageError
from densekit.planner.planning import make_plan
from densekit.recipes.explain import leaves, resolved
from densekit.recipes.load import load_recipe
from densekit.spec.math import Math
from tests.support.mutations import ODD, TIMEOUT, cases, damaged, mutated, quick

NAMES = ("tiny_stage1", "tiny_stage2", "vicuna7b_clip_stage2", "yi34b_stage2_lora")
SHOWN = {name: load_recipe(name).model_dump(mode="json") for name in NAMES}
FIELDS = sorted({".".join(field) for shown in SHOWN.values() for field, _ in leaves(shown)})
TEXTS = st.one_of(
    st.text(max_size=30),
    ODD.map(str),
    st.sampled_from(
        [
            "[1",
            "{a: b",
            "&a [*a]",
            "!!python/object:os.system x",
            "<<: 1",
            "2024-99-99",
            "0x" + "f" * 999,
        ]
    ),
)

pytestmark = pytest.mark.timeout(TIMEOUT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "mine.yaml"


def tried(name: str, *overrides: str) -> None:
    """Load a recipe and use it; a refusal names the file or the override."""
    try:
        recipe = load_recipe(name, overrides)
        resolved(name, overrides)
        assert Math.model_validate(recipe.math().as_json()) == recipe.math()
    except UsageError as error:
        assert re.search(r"mine\.yaml|--set |recipe", str(error)), str(error)
        assert len(str(error)) < 20_000
        return
    try:
        make_plan(recipe)
    except DensekitError as error:
        assert error.exit_code in (2, 3) and str(error)


@cases(60)
@given(st.sampled_from(NAMES).flatmap(lambda name: mutated(SHOWN[name])))
def test_values_of_a_recipe(place: Path, values: Any) -> None:
    place.write_text(yaml.safe_dump(values), encoding="utf-8")
    with quick():
        tried(str(place))


@cases(60)
@given(st.sampled_from(NAMES).flatmap(lambda n: damaged(yaml.safe_dump(SHOWN[n]).encode())))
def test_bytes_of_a_recipe(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    with quick():
        tried(str(place))


@cases(130)
@given(st.sampled_from(NAMES), st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS), max_size=3))
def test_overrides(name: str, overrides: list[tuple[str, str]]) -> None:
    with quick():
        tried(name, *(f"{field}={text}" for field, text in overrides))
