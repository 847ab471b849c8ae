"""Annotation files and model folders of any content: preflight finds them good, or says why not."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.errors import DataError, DensekitError
from densekit.files.json_files import read_json
from densekit.launch.preflight import preflight
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.check import refuse
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from tests.support.launching import entry, make_pair
from tests.support.mutations import TIMEOUT, as_json, cases, damaged, mutated, quick

ENTRIES = [entry(), entry(image=None, question="Why?"), {**entry(), "image": ["a.png"]}]
FILES = (
    "llm/config.json",
    "llm/tokenizer.json",
    "llm/tokenizer_config.json",
    "llm/added_tokens.json",
    "llm/special_tokens_map.json",
    "llm/model.safetensors.index.json",
    "tower/config.json",
    "tower/preprocessor_config.json",
)
BINARY = ("llm/model.safetensors", "images/a.png")

pytestmark = pytest.mark.timeout(TIMEOUT)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "mine"
    make_pair(folder)
    (folder / "llm/added_tokens.json").write_text('{"<a>": 3}')
    (folder / "llm/special_tokens_map.json").write_text('{"bos_token": {"content": "a"}}')
    (folder / "llm/model.safetensors.index.json").write_text('{"weight_map": {}}')
    return folder


def tried(folder: Path, recipe: Recipe) -> None:
    """Preflight and plan; a refusal names a file or a field."""
    roots = Roots(data=folder, models=folder, cache=folder / "cache")
    try:
        refuse(preflight(recipe, roots).checks)
    except DataError as error:
        assert any(word in str(error) for word in ("json", "models.", "data.", "safetensors"))
        assert len(str(error)) < 20_000
    try:
        make_plan(recipe, roots=roots)
    except DensekitError as error:
        assert error.exit_code in (2, 3) and str(error)


def replaced(folder: Path, name: str, data: bytes, recipe: str) -> None:
    place = folder / name
    before = place.read_bytes()
    try:
        place.write_bytes(data)
        with quick():
            tried(folder, load_recipe(str(folder / recipe)))
    finally:
        place.write_bytes(before)


@cases(60)
@given(mutated(ENTRIES), st.sampled_from(["one", "two"]))
def test_values_of_an_annotation_file(mine: Path, entries: Any, recipe: str) -> None:
    replaced(mine, f"{recipe}.json", as_json(entries), f"{recipe}.yaml")


@cases(60)
@given(damaged(as_json(ENTRIES)), st.sampled_from(["one", "two"]))
def test_bytes_of_an_annotation_file(mine: Path, data: bytes, recipe: str) -> None:
    replaced(mine, f"{recipe}.json", data, f"{recipe}.yaml")


@cases(80)
@given(st.data(), st.sampled_from(FILES))
def test_values_of_a_model_folder(mine: Path, data: st.DataObject, name: str) -> None:
    replaced(mine, name, as_json(data.draw(mutated(read_json(mine / name)))), "one.yaml")


@cases(50)
@given(st.data(), st.sampled_from([*FILES, *BINARY]))
def test_bytes_of_a_model_folder(mine: Path, data: st.DataObject, name: str) -> None:
    replaced(mine, name, data.draw(damaged((mine / name).read_bytes())), "one.yaml")
