"""Disk of a recipe, part by part."""

import pytest

from densekit.planner.disk import disk_of
from densekit.planner.plan import make_plan
from densekit.planner.workload import TrainedModel
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of


def parts(name: str, keep: int = 2, container_image: bool = True) -> dict[str, float]:
    recipe = load_recipe(name)
    model = TrainedModel.of(recipe, shape_of(recipe))
    disk = disk_of(recipe, model, dtype="bf16", keep=keep, container_image=container_image)
    return disk.parts


def test_checkpoints_grow_with_what_is_trained_and_kept() -> None:
    shape = shape_of(load_recipe("vicuna7b_clip_stage2"))
    connector, language = shape.projector_parameters, shape.language.parameters
    full = parts("vicuna7b_clip_stage2")
    assert full["checkpoints"] == 3 * 12 * (connector + language), (
        "two that are kept and one that is being written"
    )
    assert parts("vicuna7b_clip_stage2", keep=1)["checkpoints"] == full["checkpoints"] * 2 / 3
    assert parts("vicuna7b_clip_stage1")["checkpoints"] == 3 * 12 * connector
    lora = parts("vicuna7b_clip_none_stage2_lora")
    assert connector < lora["results"] / 8 < language / 10
    assert full["results"] == 2 * shape.parameters, (
        "the whole model, in the dtype it was trained in"
    )
    assert (
        full["models"]
        == parts("vicuna7b_clip_stage1")["models"]
        == 2 * language + 4 * shape.tower_parameters
    )


def test_data_and_container_image() -> None:
    assert parts("vicuna7b_clip_stage1")["data"] == pytest.approx(27.6e9, rel=0.01)
    assert parts("vicuna7b_clip_stage2")["data"] == pytest.approx(94.3e9, rel=0.01)
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
        ("vicuna7b_mgm_stage2", [], "of MGM-Instruction, images are not counted"),
        (
            "vicuna7b_clip_stage2",
            ["data.annotations=data:mine.json"],
            "the data set is not in the catalog",
        ),
    ],
)
def test_uncounted_data_is_noted(name: str, overrides: list[str], words: str) -> None:
    assert any(words in note for note in make_plan(load_recipe(name, overrides)).notes)
