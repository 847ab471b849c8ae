"""Disk of a recipe, part by part."""

import pytest

from densekit.planner.disk import DATA, disk_of
from densekit.planner.estimate import job_of
from densekit.planner.plan import make_plan
from densekit.planner.search import NOTHING
from densekit.recipes.load import load_recipe


def parts(name: str, keep: int = 2, image: bool = True) -> dict[str, float]:
    job = job_of(load_recipe(name), None, NOTHING, None)
    return disk_of(
        job.recipe, job.shape, trained=job.trained, dtype="bf16", keep=keep, image=image
    ).parts


def test_checkpoints_grow_with_what_is_trained_and_kept() -> None:
    shape = job_of(load_recipe("vicuna7b_clip_stage2"), None, NOTHING, None).shape
    connector, language = shape.projector_parameters, shape.language.parameters
    full = parts("vicuna7b_clip_stage2")
    assert full["checkpoints"] == 3 * 12 * (connector + language), (
        "two that are kept and one that is being written"
    )
    assert parts("vicuna7b_clip_stage2", keep=1)["checkpoints"] == full["checkpoints"] * 2 / 3
    assert parts("vicuna7b_clip_stage1")["checkpoints"] == 3 * 12 * connector
    lora = parts("vicuna7b_clip_none_stage2_lora")
    assert connector < lora["results"] / 8 < language / 10
    assert full["results"] == 2 * shape.parameters, "the whole model, in the type it was trained in"
    assert (
        full["models"]
        == parts("vicuna7b_clip_stage1")["models"]
        == 2 * language + 4 * shape.tower_parameters
    )


def test_data_and_image() -> None:
    assert parts("vicuna7b_clip_stage1")["data"] == pytest.approx(27.6e9, rel=0.01)
    assert (
        parts("vicuna7b_clip_stage2")["data"]
        == sum(DATA["llava_v1_5_mix665k.json"].values())
        > 50e9
    )
    assert (
        parts("vicuna7b_clip_stage1", image=False)["image"]
        == 0
        < parts("vicuna7b_clip_stage1")["image"]
    )
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
    ("name", "overrides", "said"),
    [
        ("vicuna7b_mgm_stage2", [], "only the annotations are counted"),
        (
            "vicuna7b_clip_stage2",
            ["data.annotations=data:mine.json"],
            "the size of the data is not known",
        ),
    ],
)
def test_what_is_not_counted_is_said(name: str, overrides: list[str], said: str) -> None:
    assert any(said in note for note in make_plan(load_recipe(name, overrides)).notes)
