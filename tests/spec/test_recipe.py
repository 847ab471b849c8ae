"""What a recipe may say, and what decides its run's identity."""

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from densekit.recipes.load import load_recipe
from densekit.spec.connector import Connector
from densekit.spec.recipe import Recipe


def values(name: str = "tiny_stage2") -> dict[str, Any]:
    return copy.deepcopy(load_recipe(name).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("connector", "message"),
    [
        ({"kind": "dci"}, "kind dci needs `groups`"),
        ({"kind": "dci", "layers": [1], "groups": [[0]]}, "kind dci takes no `layers`"),
        ({"kind": "sti"}, "kind sti needs `layers`"),
        ({"kind": "sci", "layers": [1], "groups": [[0]]}, "kind sci takes no `groups`"),
        ({"kind": "none", "layers": [1]}, "kind none takes no `layers`"),
        ({"kind": "dci", "groups": [[0], []]}, "a group in `groups` is empty"),
        ({"kind": "mlp"}, "'mlp' is not one of none, sti, sci, dci"),
        ({"kind": "sti", "layers": [-1]}, "greater than or equal to 0"),
        ({"kind": "sti", "layers": [True]}, "valid integer"),
    ],
)
def test_connector_kinds_take_their_own_indices(connector: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Connector.model_validate(connector)


@pytest.mark.parametrize(
    "connector",
    [
        {"kind": "none"},
        {"kind": "sti", "layers": [7, 15]},
        {"kind": "sci", "layers": [7]},
        {"kind": "dci", "groups": [[0]]},
    ],
)
def test_legal_connectors_are_accepted(connector: dict[str, Any]) -> None:
    assert Connector.model_validate(connector).kind == connector["kind"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/b",
        "",
        ".hidden",
        "-rf",
        "a b",
        "\u00e9t\u00e9",
        "a\n",
        "a\0",
        "x" * 101,
        "a\\b",
        "~",
    ],
)
def test_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="run directories are named after it"):
        Recipe.model_validate({**values(), "name": name})


@pytest.mark.parametrize("name", ["a", "7b_clip.v1-5", "X" * 100])
def test_safe_names_are_accepted(name: str) -> None:
    assert Recipe.model_validate({**values(), "name": name}).name == name


def _changed(path: str, value: Any) -> dict[str, Any]:
    changed = values()
    *parents, last = path.split(".")
    section = changed
    for parent in parents:
        section = section[parent]
    section[last] = value
    return changed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("seed", True),
        ("seed", 1.5),
        ("stage", 3),
        ("stage", "1"),
        ("stage", True),
        ("semantics", "broken"),
        ("ledger", {"U99": "fixed"}),
        ("global_batch_size", 0),
        ("global_batch_size", "16"),
        ("optimizer.epochs", True),
        ("optimizer.learning_rate", 0),
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.learning_rate", True),
        ("optimizer.learning_rate", 1e38),
        ("optimizer.connector_learning_rate", 11),
        ("optimizer.warmup_ratio", False),
        ("optimizer.weight_decay", 1e308),
        ("optimizer.weight_decay", True),
        ("optimizer.eps", 1e30),
        ("optimizer.max_grad_norm", True),
        ("optimizer.betas", [True, 0.9]),
        ("optimizer.epochs", 10**30),
        ("optimizer.max_steps", 10**10),
        ("data.max_length", 10**9),
        ("reference.gpus", 10**9),
        ("lora", {"r": 8, "alpha": 1, "dropout": False}),
        ("optimizer.weight_decay", float("inf")),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", [0.9, 1.0]),
        ("optimizer.warmup_ratio", 1.0),
        ("optimizer.schedule", "linear"),
        ("data.template", "v2"),
        ("data.samples", 0),
        ("data.image_aspect_ratio", "wide"),
        ("models.language_model", None),
        ("models.language_model", "models:" + "x" * 300),
        ("models.vision_tower", "a\0b"),
        ("data.images", "x/" * 1500),
        ("lora", {"r": 0, "alpha": 1}),
    ],
)
def test_wrong_values_are_refused_at_their_field(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(_changed(field, value))
    (location,) = {
        ".".join(map(str, error["loc"][: len(field.split("."))])) for error in caught.value.errors()
    }
    assert location == field


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"global_batch_size": 32},
            "reference 1 x 16 x 1 = 16 is not global_batch_size 32: change one",
        ),
        ({"needs": None}, "must say what it starts from"),
        (
            {"models": {"language_model": "a", "vision_tower": "b", "connector": "c"}},
            "must say what it starts from",
        ),
        ({"stage": 1}, "remove `needs` and `lora`"),
        ({"stage": 1, "needs": None, "lora": {"r": 1, "alpha": 1}}, "remove `needs` and `lora`"),
        (
            {"sources": {"optimizer.momentum": "a dream"}},
            "fields that do not exist: optimizer.momentum",
        ),
    ],
)
def test_contradicting_parts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({**values(), **changes})


def test_stage_2_may_start_from_a_file() -> None:
    models = {"language_model": "a", "vision_tower": "b", "connector": "c"}
    assert (
        Recipe.model_validate({**values(), "needs": None, "models": models}).models.connector == "c"
    )


def test_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("tiny_stage1").seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "other"),
        ("paper", "Table 9"),
        ("notes", ["a"]),
        ("sources", {"seed": "a guess"}),
        ("hardware", {"gpu": "v100-32g", "gpus": 8}),
    ],
)
def test_descriptive_fields_are_not_math(field: str, value: Any) -> None:
    assert Recipe.model_validate(_changed(field, value)).math() == load_recipe("tiny_stage2").math()
    assert field not in type(load_recipe("tiny_stage2").math()).model_fields


def test_estimated_samples_are_not_math() -> None:
    unknown = _changed("data.samples", None)
    estimated = {**unknown, "data": {**unknown["data"], "samples_estimate": 2000}}
    recipe = Recipe.model_validate(estimated)
    assert recipe.data.samples_estimate == 2000
    assert recipe.math() == Recipe.model_validate(unknown).math()
    with pytest.raises(ValidationError, match="give one of them"):
        Recipe.model_validate(_changed("data.samples_estimate", 2000))


@pytest.mark.parametrize(
    "gpu", ["a100-40g", "v100-16g", "h200-141g", "l40s-48g", "rtx4090-24g", "cpu"]
)
def test_hardware_names_a_gpu_of_the_table(gpu: str) -> None:
    hardware = {"gpu": gpu, "gpus": 8, "nodes": 2}
    assert Recipe.model_validate(_changed("hardware", hardware)).hardware is not None
    for wrong in ({"gpu": "A100 40GB"}, {"gpu": ""}, {"nodes": 3}, {"gpus": 0}):
        with pytest.raises(ValidationError):
            Recipe.model_validate(_changed("hardware", {**hardware, **wrong}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 7),
        ("semantics", "fixed"),
        ("ledger", {"L1": "fixed"}),
        ("ledger", {"U8": "fixed"}),
        ("ledger", {"U9": "fixed"}),
        ("ledger", {"L2": "fixed"}),
        ("optimizer.eps", 1e-6),
        ("optimizer.max_grad_norm", None),
        ("connector", {"kind": "sti", "layers": [1]}),
        ("data.template", "phi"),
        ("data.max_length", 255),
        ("models.tokenizer", "elsewhere"),
        ("lora", {"r": 1, "alpha": 1}),
        ("reference", {"gpus": 2, "per_device_batch_size": 8}),
    ],
)
def test_fields_that_decide_the_result_are_math(field: str, value: Any) -> None:
    assert Recipe.model_validate(_changed(field, value)).math() != load_recipe("tiny_stage2").math()


def test_semantics_of_a_ledger_entry() -> None:
    recipe = Recipe.model_validate({**values(), "ledger": {"U8": "fixed"}})
    assert (recipe.semantics_of("U8"), recipe.semantics_of("L1")) == ("fixed", "faithful")
    fixed = Recipe.model_validate({**values(), "semantics": "fixed", "ledger": {"L1": "faithful"}})
    assert (fixed.semantics_of("U8"), fixed.semantics_of("L1")) == ("fixed", "faithful")


def test_math_writes_the_ledger_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny_stage2\nledger: {U9: fixed}\n", encoding="utf-8")
    written = {"L1": "faithful", "U8": "faithful", "U9": "fixed", "L2": "faithful"}
    assert load_recipe(str(file)).math().ledger == written
    assert load_recipe("tiny_stage2", ["ledger.L2=fixed"]).semantics_of("L2") == "fixed"
    # The same four answers in other words are the same run.
    turned = {
        "semantics": "fixed",
        "ledger": {"L1": "faithful", "U8": "faithful", "L2": "faithful"},
    }
    math = Recipe.model_validate({**values(), **turned}).math()
    assert math.ledger == written
    assert math.model_copy(update={"name": "mine"}) == load_recipe(str(file)).math()


def test_made_assets_are_recognised() -> None:
    tiny = load_recipe("tiny_stage2")
    assert tiny.makes(tiny.data.annotations) and not tiny.makes("data:mine.json")
    paper = load_recipe("vicuna7b_clip_stage2")
    assert not paper.makes(paper.data.annotations) and not paper.makes(
        "cache:tiny/data/stage2.json"
    )
