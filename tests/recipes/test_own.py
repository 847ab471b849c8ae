"""Recipes of one's own, as `densekit new` writes them: they load, and change what they say."""

import json
from pathlib import Path

import pytest
import yaml

from densekit.errors import UsageError
from densekit.recipes.explain import explain
from densekit.recipes.lint import lint
from densekit.recipes.load import load_needed, load_recipe
from densekit.recipes.own import parents, scaled, stage_names, write_own
from densekit.recipes.own_text import OwnData, OwnParts

PARTS = OwnParts(
    stage1=OwnData(annotations="one.json"), stage2=OwnData(annotations="two.json"), images="images"
)
ROWS = (
    "vicuna7b_stage2",
    "vicuna7b_clip_sti_conv_stage2",
    "vicuna7b_mgm_stage2",
    "vicuna7b_tuned_stage2",
    "vicuna7b_clip_stage2_v100",
    "yi34b_stage2_lora",
    "tiny_stage2",
)
"""One of each kind of parent."""


@pytest.mark.parametrize("row", ROWS)
def test_both_stages_of_every_row_load_and_inherit(row: str, tmp_path: Path) -> None:
    first, second = write_own("my", row, PARTS, tmp_path)
    assert (first.name, second.name) == ("my_stage1.yaml", "my_stage2.yaml")
    stage2, parent = load_recipe(str(second)), load_recipe(row)
    stage1 = load_needed(stage2, str(second))
    assert stage1.name == "my_stage1" and stage2.needs == "my_stage1"
    assert stage1.data.annotations == str(tmp_path / "one.json")
    for kept in ("models", "connector", "optimizer", "reference", "global_batch_size", "lora"):
        assert getattr(stage2, kept) == getattr(parent, kept)
    assert stage2.paper is None and stage2.assets is None and stage2.probe is None
    assert {check.state for check in lint(tmp_path)} == {"ok"}


def test_few_samples_get_a_smaller_batch_and_rate(tmp_path: Path) -> None:
    parts = OwnParts(
        stage1=OwnData(annotations="one.json", samples=6400),
        stage2=OwnData(annotations="two.json", samples=200_000),
        images="images",
        language_model="my-llm",
    )
    first, second = (str(path) for path in write_own("my", "vicuna7b_stage1", parts, tmp_path))
    stage1, parent = load_recipe(first), load_recipe("vicuna7b_stage1")
    assert (parent.global_batch_size, stage1.global_batch_size) == (256, 64)
    assert stage1.reference.gpus == 8 and stage1.reference.per_device_batch_size == 8
    assert stage1.optimizer.learning_rate == pytest.approx(parent.optimizer.learning_rate / 2)
    assert stage1.data.samples == 6400
    assert stage1.models.language_model == str(tmp_path / "my-llm")
    told = {value.field: value.source for value in explain(first)}
    assert "6400 samples" in (told["global_batch_size"] or "")
    assert "arXiv 2205.10287" in (told["optimizer.learning_rate"] or "")
    assert told["optimizer.warmup_ratio"] == "official pretrain script"
    assert load_recipe(second).global_batch_size == 128, "enough samples"


@pytest.mark.parametrize(
    ("samples", "batch"), [(None, 256), (25_600, 256), (25_000, 128), (3200, 32), (5, 16)]
)
def test_the_batch_follows_the_samples(samples: int | None, batch: int) -> None:
    assert scaled(load_recipe("vicuna7b_stage1"), samples).reference.global_batch_size == batch


def test_names_and_paths_of_any_letters(tmp_path: Path) -> None:
    odd = OwnParts(
        stage1=OwnData(annotations='a "b": #c.json'),
        stage2=OwnData(annotations="größe/äöü \U0001f600.json"),
        images="yes",
    )
    first, second = write_own("2nd_stage2", "tiny_stage2", odd, tmp_path / "new folder")
    assert load_recipe(str(first)).data.annotations.endswith('/a "b": #c.json')
    assert yaml.safe_load(second.read_text(encoding="utf-8"))["data"]["annotations"] == (
        "größe/äöü \U0001f600.json"
    )
    again, _ = write_own("third", str(second), PARTS, tmp_path)
    assert yaml.safe_load(again.read_text(encoding="utf-8"))["extends"] == (
        "new folder/2nd_stage1.yaml"
    )


@pytest.mark.parametrize("name", ["my", "my_stage1", "my_stage2"])
def test_one_name_for_both_stages(name: str) -> None:
    assert stage_names(name) == ("my_stage1", "my_stage2")


@pytest.mark.parametrize("name", ["", "stage1", "../my", "my recipe", "a" * 90])
def test_a_name_that_names_no_run_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="for example my_stage1"):
        stage_names(name)


def test_what_cannot_be_extended_is_refused(tmp_path: Path) -> None:
    assert parents("vicuna7b_stage1") == ("vicuna7b_stage1", "vicuna7b_stage2")
    assert parents("yi34b_stage1") == ("yi34b_stage1", "yi34b_stage2_lora")
    write_own("my", "tiny_stage1", PARTS, tmp_path)
    with pytest.raises(UsageError, match=r"my_stage1\.yaml exists"):
        write_own("my", "tiny_stage1", PARTS, tmp_path)
    alone = tmp_path / "alone.yaml"
    alone.write_text(json.dumps({"extends": "tiny_stage1"}), encoding="utf-8")
    with pytest.raises(UsageError, match="name its stage 2 instead; none starts from it"):
        parents(str(alone))
