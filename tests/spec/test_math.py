"""Math: every recipe's math through JSON, its hash, and math.json of a run."""

import json

import pytest
from pydantic import ValidationError

from densekit.files.hashing import json_sha256
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.math import Math, Optimizer, Reference, RunMath

TINY = load_recipe("tiny_stage2").math()


@pytest.mark.parametrize("name", recipe_names())
def test_math_of_every_recipe_round_trips_with_an_equal_hash(name: str) -> None:
    math = load_recipe(name).math()
    text = json.dumps(math.as_json())
    again = Math.model_validate(json.loads(text))
    assert again == math
    assert json_sha256(again.as_json()) == json_sha256(math.as_json())
    run = RunMath(recipe=math, starts_from=None, inputs={"annotations": "0" * 64})
    assert RunMath.model_validate(json.loads(json.dumps(run.as_json()))).sha256 == run.sha256


def test_run_hash_covers_recipe_inputs_and_stage_1() -> None:
    run = RunMath(recipe=TINY, starts_from="ab", inputs={"annotations": "cd"})
    optimizer = TINY.optimizer.model_copy(update={"learning_rate": 1.0})
    others = [
        run.model_copy(update={"starts_from": None}),
        run.model_copy(update={"inputs": {"annotations": "ce"}}),
        run.model_copy(update={"recipe": TINY.model_copy(update={"optimizer": optimizer})}),
    ]
    assert (
        len({run.sha256, *(RunMath(**other.model_dump(by_alias=True)).sha256 for other in others)})
        == 4
    )
    assert run.as_json()["schema"] == 2


def test_global_batch_is_that_of_the_reference_topology() -> None:
    assert Reference(gpus=3, per_device_batch_size=5, grad_accum_steps=2).global_batch_size == 30
    with pytest.raises(ValidationError, match="global_batch_size 17 is not that of the reference"):
        Math.model_validate({**TINY.as_json(), "global_batch_size": 17})


@pytest.mark.parametrize(
    ("name", "trains"),
    [
        ("vicuna7b_stage1", "connector"),
        ("vicuna7b_stage2", "full"),
        ("yi34b_stage2_lora", "lora"),
    ],
)
def test_what_has_gradients_follows_stage_and_lora(name: str, trains: str) -> None:
    assert load_recipe(name).math().trains == trains


def test_tokenizer_folder_is_the_language_models_by_default() -> None:
    models = TINY.models.model_copy(update={"tokenizer": None})
    assert models.tokenizer_folder == models.language_model
    assert models.model_copy(update={"tokenizer": "own"}).tokenizer_folder == "own"


def test_math_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TINY.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Optimizer.model_validate({"learning_rate": 1, "momentum": 0.9})
