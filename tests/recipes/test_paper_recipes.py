"""The paper's configurations as recipes: each is there, varies what the paper varies, and gives its
sources.
"""

from pathlib import Path
from typing import Any

import pytest

from densekit.files.hashing import json_sha256
from densekit.launch.chain import load_chain
from densekit.recipes.explain import explain, leaves, report
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.recipe import Recipe

PAPER = [name for name in recipe_names() if not name.startswith("tiny")]
SOURCED = (
    "models",
    "connector",
    "data",
    "optimizer",
    "lora",
    "global_batch_size",
    "reference",
    "hardware",
    "seed",
    "semantics",
    "ledger",
)
CONFIGURATIONS = [
    "vicuna7b_clip_stage2",
    "vicuna7b_clip_none_stage2",
    "vicuna13b_clip_none_stage2",
    "vicuna7b_clip_none_stage2_lora",
    "vicuna13b_clip_none_stage2_lora",
    "vicuna7b_clip_sti_stage2",
    "vicuna7b_clip_sti_8_16_20_24_stage2",
    "vicuna7b_clip_dci3_stage2",
    "vicuna7b_clip_sci_stage2",
    "vicuna7b_clip_sci_16_24_stage2",
    "vicuna7b_clip_sci_8_16_20_24_stage2",
    "vicuna7b_clip_sci_4_8_16_24_stage2",
    "vicuna7b_clip_sci_8_12_16_24_stage2",
    "vicuna7b_clip_sti_conv_stage2",
    "vicuna7b_clip_sci_conv_stage2",
    "vicuna7b_clip_dci_linear_stage2",
    "vicuna7b_clip_tuned_stage2",
    "vicuna7b_tuned_stage2",
    "vicuna13b_mgm_anyres_stage2",
    "vicuna7b_anyres_stage2",
    "vicuna7b_clip_anyres_stage2",
    "vicuna7b_clip_anyres_both_stage2",
    "vicuna7b_clip_none_anyres_stage2",
    "vicuna7b_mgm_anyres_stage2",
    "yi34b_mgm_anyres_stage2",
    "vicuna7b_clip_convnext_mgm_stage2",
    "vicuna13b_clip_convnext_mgm_stage2",
    "vicuna7b_clip_efficient_stage2",
    "vicuna7b_clip_efficient_before_stage2",
    "phi2_stage2",
    "vicuna7b_stage2",
    "vicuna13b_stage2",
    "llama3_8b_stage2",
    "yi34b_stage2_lora",
    "llama3_70b_stage2_lora",
    "vicuna7b_mgm_stage2",
    "vicuna13b_mgm_stage2",
    "llama3_70b_mgm_stage2_lora",
    "vicuna7b_clip_stage2_v100",
    "vicuna13b_clip_stage2_v100",
    "vicuna13b_clip_stage2_lora",
    "llama3_8b_plain_stage2",
]
CLIP_DCI, SIGLIP_DCI = ((0, 12), (12, 24)), ((0, 13), (13, 26))
HASHES = {
    "tiny_stage1": "9d84666af81c7794be6cb1833ac88469d8aa1a29a9c60b871857c9266c342eaa",
    "tiny_stage2": "cdcaec721a7684224e72c5460d0c3571dd8afc10beeb156302f32468782496d1",
    "tiny_stage2_lora": "a82354ad11ea792975eb4b521b654ce689e55847b7656ac5a879164bc753aa61",
    "vicuna7b_clip_stage1": "00d14c51d2d2d22f2e55be53e9b73cd3486ea7f8a758702684e0d42e2c4b8659",
    "vicuna7b_clip_stage2": "b6eaca2b5ea093bcfd09689cf8544858f350ea84d53dc6148451d7f850eb5fc8",
}
"""SHA-256 of the math, as it was when these recipes were first trained: a run directory is named
after it.
"""


@pytest.mark.parametrize("name", HASHES)
def test_math_hash_of_a_recipe_does_not_change(name: str) -> None:
    assert json_sha256(load_recipe(name).math().as_json()) == HASHES[name]


def test_every_configuration_of_the_paper_has_a_recipe() -> None:
    second = {recipe.name: recipe for recipe in map(load_recipe, PAPER) if recipe.stage == 2}
    assert set(second) == {*CONFIGURATIONS}


@pytest.mark.parametrize("name", PAPER)
def test_every_value_has_a_source(name: str) -> None:
    """A source of a value that a child overrides is none (see `explain`)."""
    explained = [value for value in explain(name) if value.field.split(".")[0] in SOURCED]
    assert len(explained) > 25
    assert not [
        value.field for value in explained if value.value not in (None, [], {}) and not value.source
    ]
    recipe = load_recipe(name)
    outdated = [
        value.field
        for value in explained
        if value.source is None
        and any(f"{value.field}.".startswith(f"{key}.") for key in recipe.sources)
    ]
    assert not outdated


def test_source_of_the_parents_value_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: vicuna7b_stage2\noptimizer:\n  learning_rate: 1.0e-5\n", encoding="utf-8"
    )
    explained = {value.field: value for value in explain(str(path))}
    assert explained["optimizer.learning_rate"].place == f"{path}:3"
    assert explained["optimizer.learning_rate"].source is None
    assert explained["optimizer.warmup_ratio"].source == "official finetune script"
    path.write_text(
        path.read_text(encoding="utf-8") + "sources: {optimizer: tried}\n", encoding="utf-8"
    )
    mine = {value.field: value.source for value in explain(str(path))}
    assert mine["optimizer.learning_rate"] is None, (
        "the nearest key speaks, and that one is about the parent's value"
    )


def test_every_paper_recipe_writes_its_own_title_and_row() -> None:
    assert len({load_recipe(name).title for name in PAPER}) == len(PAPER)
    for name in PAPER:
        places = {value.field: value.place for value in explain(name)}
        assert places["title"].startswith(f"recipes/{name}.yaml:") and places["paper"].startswith(
            f"recipes/{name}."
        )


@pytest.mark.parametrize("name", [*CONFIGURATIONS])
def test_both_stages_of_a_configuration_fit_together(name: str) -> None:
    first, second = load_chain(name, ())
    assert (first.stage, second.stage) == (1, 2)
    llama_3 = name.startswith("llama3") and "plain" not in name
    assert first.data.template == ("llama_3" if llama_3 else "plain")
    assert first.optimizer.learning_rate == 1e-3
    assert (first.global_batch_size, second.global_batch_size) == (256, 128)
    assert (second.lora is not None) == name.endswith("_lora")
    rate = 2e-4 if second.lora else 2e-5
    assert (second.optimizer.learning_rate, second.optimizer.epochs) == (rate, 1)
    if second.lora:
        assert (second.lora.r, second.lora.alpha, second.lora.dropout) == (128, 256, 0.05)
        assert second.optimizer.connector_learning_rate == 2e-5


def varies(name: str, other: str) -> set[str]:
    """Fields of the math in which two recipes differ, without their names."""
    ours, theirs = (dict(leaves(load_recipe(recipe).math().as_json())) for recipe in (name, other))
    fields = {*ours, *theirs}
    return {".".join(field) for field in fields if ours.get(field) != theirs.get(field)} - {
        "name",
        "needs",
    }


LEARNED = {f"connector.learned.{name}" for name in ("shared", "high_level", "bias")}
CONNECTOR = {"connector.kind", "connector.layers", "connector.groups", *LEARNED}
TRAINED = ("sti_conv", "sci_conv", "dci_linear")
LORA = {
    "lora",
    "lora.r",
    "lora.alpha",
    "lora.dropout",
    "optimizer.learning_rate",
    "optimizer.connector_learning_rate",
}
LARGE = {"reference.gpus", "reference.per_device_batch_size"}
DATA = {"data.annotations", "data.images", "data.samples", "data.missing"}
LLM = {"models.language_model"}
MINING = {
    "models.high_resolution_tower",
    *(f"connector.mining.{name}" for name in ("image_size", "window", "drop_path")),
}
ANYRES = {
    "data.image_aspect_ratio",
    "data.anyres.pinpoints",
    "data.anyres.merge",
    "data.max_length",
}


@pytest.mark.parametrize(
    ("name", "other", "allowed"),
    [
        *(
            (f"vicuna7b_clip_{kind}_stage{stage}", f"vicuna7b_clip_stage{stage}", CONNECTOR)
            for stage in (1, 2)
            for kind in ("none", "sti", "sci", "dci3", "sci_8_16_20_24", "sti_8_16_20_24", *TRAINED)
        ),
        *(
            (
                f"vicuna7b_clip_{name}_stage{stage}",
                f"vicuna7b_clip_stage{stage}",
                {"connector.reduce_tokens"},
            )
            for stage in (1, 2)
            for name in ("efficient", "efficient_before")
        ),
        *((f"{llm}_stage1", "vicuna7b_stage1", LLM) for llm in ("vicuna13b", "phi2")),
        ("llama3_8b_stage1", "vicuna7b_stage1", LLM | {"data.template", "ledger.L1"}),
        ("llama3_8b_plain_stage1", "llama3_8b_stage1", {"data.template", "ledger.L1"}),
        ("llama3_8b_plain_stage2", "llama3_8b_stage2", set()),
        ("vicuna13b_clip_stage1", "vicuna7b_clip_stage1", LLM),
        ("vicuna13b_clip_stage2_lora", "vicuna7b_clip_stage2", LLM | LORA),
        *(
            (
                f"{llm}_clip_convnext_mgm_stage{stage}",
                f"vicuna7b_clip_stage{stage}",
                DATA | LARGE | LLM | MINING,
            )
            for stage in (1, 2)
            for llm in ("vicuna7b", "vicuna13b")
        ),
        ("vicuna7b_tuned_stage2", "vicuna7b_stage2", {"optimizer.tower_learning_rate"}),
        ("vicuna7b_clip_tuned_stage2", "vicuna7b_clip_stage2", {"optimizer.tower_learning_rate"}),
        ("vicuna13b_stage2", "vicuna7b_stage2", LLM),
        ("phi2_stage2", "vicuna7b_stage2", LLM | {"data.template"}),
        ("llama3_8b_stage2", "vicuna7b_stage2", LLM | {"data.template", "ledger.L1"}),
        *(
            (
                f"{llm}_stage2_lora",
                "vicuna7b_stage2",
                LLM | LORA | LARGE | {"data.template", "ledger.L1"},
            )
            for llm in ("yi34b", "llama3_70b")
        ),
        ("yi34b_stage1", "vicuna7b_stage1", LLM | LARGE),
        (
            "llama3_70b_stage1",
            "vicuna7b_stage1",
            LLM | LARGE | {"data.template", "ledger.L1"},
        ),
        *(
            (
                f"vicuna7b_stage{stage}",
                f"vicuna7b_clip_stage{stage}",
                {"models.vision_tower", "connector.groups"},
            )
            for stage in (1, 2)
        ),
        *(
            (f"{llm}_mgm_stage{stage}", f"{llm}_stage{stage}", DATA)
            for stage in (1, 2)
            for llm in ("vicuna7b", "vicuna13b")
        ),
        ("llama3_70b_mgm_stage2_lora", "llama3_70b_stage2_lora", DATA),
        *(
            (f"vicuna7b_clip_stage{stage}_v100", f"vicuna7b_clip_stage{stage}", set())
            for stage in (1, 2)
        ),
        *(
            (f"vicuna13b_clip_stage{stage}_v100", f"vicuna7b_clip_stage{stage}", LLM)
            for stage in (1, 2)
        ),
        (
            "yi34b_mgm_anyres_stage2",
            "vicuna7b_mgm_stage2",
            LLM | LARGE | ANYRES | {"data.template"},
        ),
        ("vicuna7b_anyres_stage2", "vicuna7b_stage2", ANYRES),
    ],
)
def test_variant_changes_only_what_the_paper_varies(
    name: str, other: str, allowed: set[str]
) -> None:
    assert varies(name, other) <= allowed


def test_connector_indices_are_hidden_states() -> None:
    """The paper's layer number is index + 1, and layer 24 (SigLIP: the last) is always read."""
    layers = {
        "sti": (7, 15),
        "sti_8_16_20_24": (7, 15, 19),
        "sci": (7, 15),
        "sci_16_24": (15,),
        "sci_8_16_20_24": (7, 15, 19),
        "sci_4_8_16_24": (3, 7, 15),
        "sci_8_12_16_24": (7, 11, 15),
    }
    for kind, indices in layers.items():
        connector = load_recipe(f"vicuna7b_clip_{kind}_stage2").connector
        assert (connector.kind, connector.layers) == (kind[:3], indices)
    three = load_recipe("vicuna7b_clip_dci3_stage2").connector.groups
    assert [list(group) for group in three] == [[*range(8)], [*range(8, 16)], [*range(16, 24)]]
    for recipe in map(load_recipe, PAPER):
        if recipe.connector.kind == "dci" and len(recipe.connector.groups) == 2:
            bounds = SIGLIP_DCI if "siglip" in recipe.models.vision_tower else CLIP_DCI
            assert recipe.connector.groups == tuple(tuple(range(*bound)) for bound in bounds), (
                recipe.name
            )


def test_llama_3_recipes_fix_their_labels() -> None:
    """docs/upstream.md, 1.8: with an added BOS `faithful` masks every conversation of several
    rounds.
    """
    templates = {}
    for recipe in map(load_recipe, PAPER):
        model = recipe.models.language_model.rpartition("/")[2]
        templates.setdefault((model, recipe.stage), set()).add(recipe.data.template)
        assert recipe.semantics == "faithful"
        assert (recipe.semantics_of("L1") == "fixed") == (recipe.data.template == "llama_3")
    assert {model for model, stage in templates if stage == 1} == {
        model for model, stage in templates if stage == 2
    }
    assert {model: found for (model, stage), found in templates.items() if stage == 1} == {
        "vicuna-7b-v1.5": {"plain"},
        "vicuna-13b-v1.5": {"plain"},
        "phi-2": {"plain"},
        "Nous-Hermes-2-Yi-34B": {"plain"},
        "Meta-Llama-3-8B-Instruct": {"llama_3", "plain"},
        "Meta-Llama-3-70B-Instruct": {"llama_3"},
    }
    assert {model: found for (model, stage), found in templates.items() if stage == 2} == {
        "vicuna-7b-v1.5": {"v1"},
        "vicuna-13b-v1.5": {"v1"},
        "phi-2": {"phi"},
        "Nous-Hermes-2-Yi-34B": {"chatml_direct"},
        "Meta-Llama-3-8B-Instruct": {"llama_3"},
        "Meta-Llama-3-70B-Instruct": {"llama_3"},
    }


def hardware(recipe: Recipe) -> tuple[Any, ...]:
    assert recipe.hardware is not None
    return recipe.hardware.gpu, recipe.hardware.gpus, recipe.hardware.nodes


def test_hardware_is_the_papers() -> None:
    for recipe in map(load_recipe, PAPER):
        large = recipe.name.startswith(("yi34b", "llama3_70b"))
        expected = (
            ("a100-80g", 32, 4)
            if large
            else ("v100-32g" if "v100" in recipe.name else "a100-40g", 8, 1)
        )
        assert hardware(recipe) == expected, recipe.name
        if "convnext" not in recipe.name:
            assert recipe.reference.gpus == recipe.hardware.gpus  # type: ignore[union-attr]


def test_reference_topology_of_the_tower_pair_is_mini_geminis() -> None:
    for llm, gpus, sizes in (("7b", 16, (16, 8)), ("13b", 32, (8, 4))):
        for stage, size in zip((1, 2), sizes, strict=True):
            reference = load_recipe(f"vicuna{llm}_clip_convnext_mgm_stage{stage}").reference
            assert (reference.gpus, reference.per_device_batch_size) == (gpus, size)
            assert reference.grad_accum_steps == 1


@pytest.mark.parametrize(
    "name", ["vicuna13b_stage2", "llama3_8b_stage2", "yi34b_stage2_lora", "tiny_stage2_lora"]
)
def test_every_value_is_explained(name: str) -> None:
    """By its source, or at least by what the schema says the field means."""
    explained = explain(name)
    assert not [value.field for value in explained if not value.meaning]
    lines = report(explained)
    for value in explained:
        (place,) = (
            number for number, line in enumerate(lines) if line.startswith(f"{value.field} = ")
        )
        assert lines[place + 1].startswith("    (") == (value.source is None), value.field
    assert len({value.field for value in explained}) == len(explained) > 30
