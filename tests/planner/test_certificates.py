"""Certificates of recipes: made from the annotation file, cached, found without reading it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from densekit import cli
from densekit.batching.order import OfficialOrder
from densekit.batching.run_order import certify
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.errors import DataError
from densekit.planner.certificates import cached_certificate, make_certificate
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import hardware
from densekit.spec.math import Reference
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


class Data(NamedTuple):
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
def data(tmp_path: Path) -> Data:
    roots = Roots(data=tmp_path / "data", cache=tmp_path / "cache")
    annotations = tmp_path / "data" / "mine.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps(_entries(40)), encoding="utf-8")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: tiny_stage2\n"
        "data: {annotations: 'data:mine.json', samples: null}\n"
        "optimizer: {epochs: 2}\n"
        "reference: {gpus: 2, per_device_batch_size: 4, grad_accum_steps: 2}\n",
        encoding="utf-8",
    )
    return Data(roots, annotations, str(recipe))


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: Any, **kwargs: Any) -> Annotations:
        raise AssertionError("the annotation file was read")

    monkeypatch.setattr(Annotations, "load", read)


def test_certificate_is_that_of_the_recipes_order(data: Data) -> None:
    index = SampleIndex.of(Annotations.load(data.annotations))
    order = OfficialOrder(
        modality_lengths=index.modality_lengths,
        topology=Reference(gpus=2, per_device_batch_size=4, grad_accum_steps=2),
        seed=42,
        group_by_modality=True,
    )
    assert make_certificate(data.load(), data.roots) == certify(order, index.sample_ids(), epochs=2)
    by_steps = make_certificate(data.load("optimizer.max_steps=3"), data.roots)
    assert by_steps == certify(order, index.sample_ids(), max_steps=3)
    fixed = make_certificate(data.load("ledger.U9=fixed"), data.roots)
    assert fixed == certify(order, index.sample_ids(), epochs=2, tail="fixed")
    assert len({by_steps.sha256, fixed.sha256}) == 2


def test_certificate_is_cached_and_found_without_reading(
    data: Data, request: pytest.FixtureRequest
) -> None:
    assert cached_certificate(data.load(), data.roots) is None
    made = make_certificate(data.load(), data.roots)
    assert len(data.kept()) == 1
    assert (data.roots.cache / "index" / Annotations.load(data.annotations).sha256).is_dir()
    request.getfixturevalue("no_reading")
    assert cached_certificate(data.load(), data.roots) == made
    # What does not decide the order does not hide it either.
    for override in (
        "optimizer.learning_rate=1",
        "ledger.U8=fixed",
        "title=other",
        "data.samples=40",
    ):
        assert cached_certificate(data.load(override), data.roots) == made


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
def test_another_order_is_not_found_in_the_cache(data: Data, override: str) -> None:
    make_certificate(data.load(), data.roots)
    assert cached_certificate(data.load(override), data.roots) is None


def test_changed_annotation_file_is_not_found_in_the_cache(data: Data) -> None:
    first = make_certificate(data.load(), data.roots)
    state = data.annotations.stat()
    os.utime(data.annotations, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert cached_certificate(data.load(), data.roots) is None
    data.annotations.write_text(json.dumps(_entries(39)), encoding="utf-8")
    os.utime(data.annotations, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cached_certificate(data.load(), data.roots) is None
    assert make_certificate(data.load(), data.roots).sha256 != first.sha256
    data.annotations.unlink()
    assert cached_certificate(data.load(), data.roots) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_damaged_certificate_is_ignored_with_a_message(
    data: Data, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    made = make_certificate(data.load(), data.roots)
    (kept,) = data.kept()
    kept.write_text(text, encoding="utf-8")
    assert cached_certificate(data.load(), data.roots) is None
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"{kept}: ignored: ")
    assert (
        make_certificate(data.load(), data.roots)
        == made
        == cached_certificate(data.load(), data.roots)
    )


def test_missing_or_wrong_annotations_are_not_certified(data: Data) -> None:
    with pytest.raises(DataError, match=r"mine\.json has 40 entries, recipe mine expects 41"):
        make_certificate(data.load("data.samples=41"), data.roots)
    data.annotations.write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.json: line 1, column 2: broken JSON"):
        make_certificate(data.load(), data.roots)
    data.annotations.unlink()
    with pytest.raises(
        DataError,
        match=r"mine\.json does not exist.*; `densekit fetch .*` gets it, --data-dir",
    ):
        make_certificate(data.load(), data.roots)
    with pytest.raises(
        DataError, match=r"stage2\.json does not exist.*; `densekit run tiny_stage2` makes it first"
    ):
        make_certificate(load_recipe("tiny_stage2"), data.roots)
    assert data.kept() == []


def _plan(
    data: Data,
    *arguments: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    roots = ["--data-dir", str(data.roots.data), "--cache-dir", str(data.roots.cache)]
    monkeypatch.setattr(
        sys, "argv", ["densekit", "plan", data.recipe, *roots, "--json", *arguments]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    assert caught.value.code in (None, 0), printed.err
    return json.loads(printed.out)


def test_plan_shows_a_cached_certificate(
    data: Data,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    before = _plan(data, capsys=capsys, monkeypatch=monkeypatch)
    assert before["certificate_sha256"] is None and before["num_samples"] == 40
    certified = _plan(data, "--certify", capsys=capsys, monkeypatch=monkeypatch)
    assert certified["certificate_sha256"] == make_certificate(data.load(), data.roots).sha256
    request.getfixturevalue("no_reading")
    assert _plan(data, capsys=capsys, monkeypatch=monkeypatch) == certified
    elsewhere = _plan(
        data, "--gpus", "4", "--device", "cuda", capsys=capsys, monkeypatch=monkeypatch
    )
    assert elsewhere["certificate_sha256"] == certified["certificate_sha256"]


def test_certificate_caches_the_lengths_that_hours_are_counted_with(data: Data) -> None:
    def lengths() -> list[str]:
        request = ExecutionRequest(device="cuda")
        plan = make_plan(data.load(), request, roots=data.roots, hardware=hardware("a100-80g"))
        return [note for note in plan.notes if "tokens" in note and note.startswith("hours: ")]

    assert lengths() == [
        "hours: assumed: 200 text tokens with an image, 900 without one (6.1 % of the samples)"
    ]
    make_certificate(data.load(), data.roots)
    assert lengths() == ["hours: words counted in the annotation file, 1.4 tokens each"]


def test_plan_takes_what_the_execution_is_to_be(
    data: Data, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    planned = _plan(data, *wanted, capsys=capsys, monkeypatch=monkeypatch)
    names = ("device", "dtype", "zero_stage", "checkpointing")
    assert [planned[name] for name in names] == ["cuda", "fp16", 2, False]
    default = _plan(data, "--activation-checkpointing", capsys=capsys, monkeypatch=monkeypatch)
    assert [default[name] for name in names] == ["cpu", "fp32", 0, True]
