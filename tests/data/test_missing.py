"""What a recipe makes of entries whose image cannot be used: which entries, and their ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from densekit.batching.run_order import RunOrder
from densekit.data.annotations import Annotations
from densekit.data.images import BadImage, Images
from densekit.data.index import SampleIndex
from densekit.data.missing import choose_entries
from densekit.errors import DataError
from densekit.recipes.load import load_recipe
from densekit.spec.math import Data, RunMath

COUNT = 200


def data(**changes: Any) -> Data:
    return load_recipe("tiny_stage1").math().data.model_copy(update=changes)


def images(*bad: int) -> Images:
    found = tuple(BadImage(index=i, image=f"{i}.png", reason="does not exist") for i in bad)
    return Images(folder=Path("images"), bad=found, deep=(), outside=())


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    entries = [
        {
            "image": f"{index}.png",
            "conversations": [
                {"from": "human", "value": "<image>"},
                {"from": "gpt", "value": "cat " * (index % 7 + 1)},
            ],
        }
        for index in range(COUNT)
    ]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    return Annotations.load(tmp_path / "a.json")


def test_dropped_entries_leave_those_of_a_shorter_file_with_their_ids(
    annotations: Annotations,
) -> None:
    chosen = choose_entries(data(missing="drop"), images(0, 7), count=COUNT, seed=1)
    kept = [index for index in range(COUNT) if index not in (0, 7)]
    assert chosen.entries.tolist() == kept
    whole = SampleIndex.of(annotations)
    index, samples = whole.take(chosen.entries), annotations.take(chosen.entries.tolist())
    assert index.sample_ids() == [whole.sample_ids()[entry] for entry in kept]
    assert [sample.sample_id for sample in samples] == index.sample_ids()
    assert [index.sample_id(place) for place in range(len(kept))] == index.sample_ids()
    assert [sample.index for sample in samples] == kept and samples.sha256 == annotations.sha256


def test_the_certificate_follows_from_what_is_kept(annotations: Annotations) -> None:
    math = load_recipe("tiny_stage1").math()
    whole = SampleIndex.of(annotations)
    chosen = choose_entries(data(missing="drop"), images(3), count=COUNT, seed=1)
    index = whole.take(chosen.entries)
    dropped = RunOrder(math, index.modality_lengths).certificate(index.sample_ids())
    full = RunOrder(math, whole.modality_lengths).certificate(whole.sample_ids())
    assert (full.num_samples, dropped.num_samples) == (COUNT, COUNT - 1)
    assert full.sha256 != dropped.sha256


def test_replaced_entries_keep_the_count_and_follow_from_the_seed() -> None:
    bad = images(0, 7)
    chosen = choose_entries(data(missing="replace"), bad, count=COUNT, seed=1)
    changed = {i: e for i, e in enumerate(chosen.entries.tolist()) if i != e}
    assert changed.keys() == {0, 7} and not set(changed.values()) & {0, 7}
    again = choose_entries(data(missing="replace"), bad, count=COUNT, seed=1)
    assert again.entries.tolist() == chosen.entries.tolist()
    other = choose_entries(data(missing="replace"), bad, count=COUNT, seed=2)
    assert other.entries.tolist() != chosen.entries.tolist()


def test_more_than_the_ceiling_is_refused() -> None:
    assert len(choose_entries(data(missing="drop"), images(1, 2), count=COUNT, seed=1).bad) == 2
    with pytest.raises(DataError, match=r"3 of 200 entries lack .*entry 1, 1.png\), more than"):
        choose_entries(data(missing="drop"), images(1, 2, 3), count=COUNT, seed=1)
    with pytest.raises(DataError, match="1 of 1 entries lack"):
        choose_entries(data(missing="drop", missing_ceiling=0.99), images(0), count=1, seed=1)


def test_what_was_dropped_has_a_hash() -> None:
    hashes = {
        choose_entries(data(missing=policy), images(*bad), count=COUNT, seed=1).sha256
        for policy in ("drop", "replace")
        for bad in ((1,), (2,), (1, 2))
    }
    assert len(hashes) == 6


def test_the_policy_is_hashed_only_where_it_is_declared() -> None:
    def run_hash(*overrides: str) -> str:
        math = load_recipe("tiny_stage1", overrides).math()
        assert RunMath.model_validate(json.loads(json.dumps(math_json(math)))).recipe == math
        return RunMath(recipe=math, starts_from=None).sha256

    def math_json(math: Any) -> dict[str, Any]:
        return RunMath(recipe=math, starts_from=None).as_json()

    plain = load_recipe("tiny_stage1").math()
    assert "missing" not in plain.as_json()["data"], "the hashes of earlier runs stay"
    assert "missing" not in math_json(plain)["recipe"]["data"]
    found = {
        run_hash(),
        run_hash("data.missing=drop"),
        run_hash("data.missing=replace"),
        run_hash("data.missing=drop", "data.missing_ceiling=0.02"),
    }
    assert len(found) == 4


@pytest.mark.parametrize("name", ["vicuna7b_mgm_stage1", "llama3_70b_mgm_stage2_lora"])
def test_recipes_on_data_with_withdrawn_images_drop_them(name: str) -> None:
    assert load_recipe(name).data.missing == "drop"
    assert load_recipe("vicuna7b_clip_stage2").data.missing == "refuse"
