"""Certificates of recipes: made from the annotation file, kept, and found again without reading it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from densekit import cli
from densekit.batching import OfficialOrder, ReferenceTopology, certify
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.errors import DataError
from densekit.planner.certificates import cached_certificate, make_certificate
from densekit.planner.plan import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.hardware import hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


class Place(NamedTuple):
    """A folder with 40 samples in data/mine.json and a recipe file that reads them."""

    roots: Roots
    annotations: Path
    recipe: str

    def load(self, *overrides: str) -> Recipe:
        return load_recipe(self.recipe, overrides)

    def kept(self) -> list[Path]:
        return sorted((self.roots.cache / "certificates").glob("*"))


def _entries(samples: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number in range(samples):
        turns = [
            {"from": "human", "value": f"What {'more ' * number}"},
            {"from": "gpt", "value": "A cat."},
        ]
        entries.append({"conversations": turns})
        if number % 3:
            turns[0]["value"] += "<image>"
            entries[-1]["image"] = "a.png"
    return entries


@pytest.fixture
def place(tmp_path: Path) -> Place:
    roots = Roots(data=tmp_path / "data", cache=tmp_path / "cache")
    annotations = tmp_path / "data" / "mine.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps(_entries(40)), encoding="utf-8")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: tiny_stage2\ndata: {annotations: 'data:mine.json', samples: null}\noptimizer: {epochs: 2}\n"
        "reference: {gpus: 2, per_device_batch_size: 4, grad_accum_steps: 2}\n",
        encoding="utf-8",
    )
    return Place(roots, annotations, str(recipe))


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: Any, **kwargs: Any) -> Annotations:
        raise AssertionError("the annotation file was read")

    monkeypatch.setattr(Annotations, "load", read)


def test_a_certificate_is_that_of_the_recipes_order(place: Place) -> None:
    index = SampleIndex.of(Annotations.load(place.annotations))
    order = OfficialOrder(
        modality_lengths=index.modality_lengths,
        topology=ReferenceTopology(world_size=2, per_device_batch_size=4, grad_accum_steps=2),
        seed=42,
        group_by_modality=True,
    )
    assert make_certificate(place.load(), place.roots) == certify(
        order, index.sample_ids(), epochs=2
    )
    by_steps = make_certificate(place.load("optimizer.max_steps=3"), place.roots)
    assert by_steps == certify(order, index.sample_ids(), max_steps=3)
    fixed = make_certificate(place.load("ledger.U9=fixed"), place.roots)
    assert fixed == certify(order, index.sample_ids(), epochs=2, tail="fixed")
    assert len({by_steps.sha256, fixed.sha256}) == 2


def test_a_certificate_is_kept_and_found_again(
    place: Place, request: pytest.FixtureRequest
) -> None:
    assert cached_certificate(place.load(), place.roots) is None
    made = make_certificate(place.load(), place.roots)
    assert len(place.kept()) == 1
    assert (
        place.roots.cache / "index" / f"{Annotations.load(place.annotations).sha256}.npz"
    ).is_file()
    request.getfixturevalue("no_reading")
    assert cached_certificate(place.load(), place.roots) == made
    # What does not decide the order does not hide it either.
    for override in (
        "optimizer.learning_rate=1",
        "ledger.U8=fixed",
        "title=other",
        "data.samples=40",
    ):
        assert cached_certificate(place.load(override), place.roots) == made


@pytest.mark.parametrize(
    "override",
    [
        "seed=43",
        "reference={gpus: 4, per_device_batch_size: 4, grad_accum_steps: 1}",
        "data.group_by_modality_length=false",
        "optimizer.epochs=3",
        "optimizer.max_steps=2",
        "ledger.U9=fixed",
        "data.samples=41",
    ],
)
def test_another_order_is_not_found(place: Place, override: str) -> None:
    make_certificate(place.load(), place.roots)
    assert cached_certificate(place.load(override), place.roots) is None


def test_a_file_that_changed_is_not_found(place: Place) -> None:
    first = make_certificate(place.load(), place.roots)
    state = place.annotations.stat()
    os.utime(place.annotations, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert cached_certificate(place.load(), place.roots) is None
    place.annotations.write_text(json.dumps(_entries(39)), encoding="utf-8")
    os.utime(place.annotations, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cached_certificate(place.load(), place.roots) is None
    assert make_certificate(place.load(), place.roots).sha256 != first.sha256
    place.annotations.unlink()
    assert cached_certificate(place.load(), place.roots) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_a_damaged_certificate_counts_as_none_and_is_said(
    place: Place, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    made = make_certificate(place.load(), place.roots)
    (kept,) = place.kept()
    kept.write_text(text, encoding="utf-8")
    assert cached_certificate(place.load(), place.roots) is None
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"{kept}: ignored: ")
    assert (
        make_certificate(place.load(), place.roots)
        == made
        == cached_certificate(place.load(), place.roots)
    )


def test_what_cannot_be_certified(place: Place) -> None:
    with pytest.raises(DataError, match=r"mine\.json has 40 entries, recipe mine expects 41"):
        make_certificate(place.load("data.samples=41"), place.roots)
    place.annotations.write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.json: line 1, column 2: broken JSON"):
        make_certificate(place.load(), place.roots)
    place.annotations.unlink()
    with pytest.raises(
        DataError, match=r"mine\.json does not exist.*; give its folder with --data-dir"
    ):
        make_certificate(place.load(), place.roots)
    with pytest.raises(
        DataError, match=r"stage2\.json does not exist.*; `densekit run tiny_stage2` makes it first"
    ):
        make_certificate(load_recipe("tiny_stage2"), place.roots)
    assert place.kept() == []


def _plan(
    place: Place,
    *arguments: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    roots = ["--data-dir", str(place.roots.data), "--cache-dir", str(place.roots.cache)]
    monkeypatch.setattr(
        sys, "argv", ["densekit", "plan", place.recipe, *roots, "--json", *arguments]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr()
    assert caught.value.code in (None, 0), told.err
    return json.loads(told.out)


def test_plan_shows_a_certificate_once_it_was_made(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    before = _plan(place, capsys=capsys, monkeypatch=monkeypatch)
    assert before["certificate_sha256"] is None and before["num_samples"] == 40
    certified = _plan(place, "--certify", capsys=capsys, monkeypatch=monkeypatch)
    assert certified["certificate_sha256"] == make_certificate(place.load(), place.roots).sha256
    request.getfixturevalue("no_reading")
    assert _plan(place, capsys=capsys, monkeypatch=monkeypatch) == certified
    elsewhere = _plan(
        place, "--gpus", "4", "--device", "cuda", capsys=capsys, monkeypatch=monkeypatch
    )
    assert elsewhere["certificate_sha256"] == certified["certificate_sha256"]


def test_a_certificate_keeps_the_lengths_that_hours_are_counted_with(place: Place) -> None:
    def lengths() -> list[str]:
        plan = make_plan(
            place.load(), roots=place.roots, device="cuda", hardware=hardware("a100-80g")
        )
        return [note for note in plan.notes if "tokens" in note and note.startswith("hours: ")]

    assert lengths() == [
        "hours: assumed: 200 text tokens with an image, 900 without one (6.1 % of the samples)"
    ]
    make_certificate(place.load(), place.roots)
    assert lengths() == ["hours: words counted in the annotation file, 1.4 tokens each"]


def test_plan_takes_what_the_execution_is_to_be(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (
        "--device",
        "cuda",
        "--dtype",
        "fp16",
        "--zero-stage",
        "2",
        "--no-activation-checkpointing",
    )
    planned = _plan(place, *wanted, capsys=capsys, monkeypatch=monkeypatch)
    names = ("device", "dtype", "zero_stage", "checkpointing")
    assert [planned[name] for name in names] == ["cuda", "fp16", 2, False]
    default = _plan(place, "--activation-checkpointing", capsys=capsys, monkeypatch=monkeypatch)
    assert [default[name] for name in names] == ["cpu", "fp32", 0, True]
