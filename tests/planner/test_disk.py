"""Disk of a recipe, part by part."""

import pytest

from densekit.planner.disk import disk_of
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of
from densekit.spec.trained_model import TrainedModel


def parts(name: str, keep: int = 2, container_image: bool = True) -> dict[str, float]:
    recipe = load_recipe(name)
    model = TrainedModel.of(recipe, shape_of(recipe))
    disk = disk_of(recipe, model, dtype="bf16", keep=keep, container_image=container_image)
    return disk.parts


# Counted by hand: 3 x 1024 -> 4096 -> 4096 with biases; Vicuna 7B, and CLIP-L/336 without its head.
CONNECTOR = (3 * 1024 + 1) * 4096 + (4096 + 1) * 4096
LANGUAGE, TOWER = 6_738_415_616, 290_909_184


def test_checkpoints_grow_with_what_is_trained_and_kept() -> None:
    """12 bytes of a trained parameter for each checkpoint kept and the one being written."""
    full, connector = parts("vicuna7b_clip_stage2"), parts("vicuna7b_clip_stage1")
    assert full["checkpoints"] == 36 * (CONNECTOR + LANGUAGE)
    assert parts("vicuna7b_clip_stage2", keep=1)["checkpoints"] == 24 * (CONNECTOR + LANGUAGE)
    assert connector["checkpoints"] == 36 * CONNECTOR


def test_results_are_what_was_trained_and_models_what_is_fetched() -> None:
    full, connector = parts("vicuna7b_clip_stage2"), parts("vicuna7b_clip_stage1")
    assert full["results"] == 2 * (CONNECTOR + LANGUAGE + TOWER), "the whole model, in bf16"
    assert connector["results"] < full["results"] / 50
    assert CONNECTOR < parts("vicuna7b_clip_none_stage2_lora")["results"] / 8 < LANGUAGE / 10
    assert full["models"] == connector["models"] == 2 * LANGUAGE + 4 * TOWER


def test_data_and_container_image() -> None:
    assert parts("vicuna7b_clip_stage1")["data"] == pytest.approx(27.6e9, rel=0.01)
    assert parts("vicuna7b_clip_stage2")["data"] == pytest.approx(73.3e9, rel=0.01)
    without = parts("vicuna7b_clip_stage1", container_image=False)
    assert without["image"] == 0 < parts("vicuna7b_clip_stage1")["image"]
    tiny = make_plan(load_recipe("tiny_stage2"))
    assert (
        tiny.disk_parts_gib is not None
        and tiny.disk_parts_gib["data"] == tiny.disk_parts_gib["image"] == 0
    )
    assert (
        tiny.disk_gib is not None
        and 0 < tiny.disk_gib < 1
        and not any("disk:" in note for note in tiny.notes)
    )


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        (
            "vicuna7b_mgm_stage2",
            [],
            "of MGM-Instruction, gpt4v-dataset, docvqa, chartqa, dvqa, ai2d, ALLaVA-4V are not",
        ),
        (
            "vicuna7b_clip_stage2",
            ["data.annotations=data:mine.json"],
            "the data set is not in the catalog",
        ),
    ],
)
def test_uncounted_data_is_noted(name: str, overrides: list[str], words: str) -> None:
    assert any(words in note for note in make_plan(load_recipe(name, overrides)).notes)
