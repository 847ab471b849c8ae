"""Comparing run directories that are incomplete or damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from densekit.audit.diff.compare import compare_runs
from densekit.errors import DataError
from tests.support.audit import edit_metrics, explaining
from tests.support.runs import change_entry, train

# Damaged and incomplete directories


def test_missing_feed_names_no_sample(run: Path, second: Path, tmp_path: Path) -> None:
    change_entry(second, 12)
    other = train(second, tmp_path / "runs")
    (other / "feed.jsonl").unlink()
    found = compare_runs(run, other)
    assert (
        found.divergences[0].kind == "ids"
        and f"{other}/feed.jsonl lacks this step" in found.divergences[0].detail
    )
    assert explaining(found)[0].startswith("annotation file differs")


def test_feed_that_contradicts_the_metrics(run: Path, copy: Path) -> None:
    edit_metrics(copy, 2, ids="0" * 64)
    assert "both feed.jsonl list the same" in compare_runs(run, copy).divergences[0].detail


def test_run_without_a_manifest_is_compared_by_its_attempt(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(world, tmp_path, environment={"packages": {"torch": "3"}}, stop_after=2)
    (other / "manifest.json").unlink()
    assert "package torch: 2.13.0 and 3" in [
        cause.message for cause in compare_runs(run, other).explanations
    ]


def test_runs_without_a_step_are_refused(world: Path, tmp_path: Path) -> None:
    runs = [train(world, tmp_path / name, stop_after=0) for name in ("a", "b")]
    with pytest.raises(DataError, match=r"neither .* nor .* has a step"):
        compare_runs(*runs)


def test_folder_without_math_json_is_not_compared(run: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"is not a run directory: it has no math\.json"):
            compare_runs(run, path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("metrics.jsonl", lambda text: text[:-20], r"metrics\.jsonl: line 6 is not a JSON object"),
        (
            "metrics.jsonl",
            lambda text: "[1]\n" + text,
            r"metrics\.jsonl: line 1 is not a JSON object",
        ),
        ("metrics.jsonl", lambda text: text.split("\n", 1)[1], r"metrics\.jsonl: line 1 is step 2"),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss"', '"lost"', 1),
            r"metrics\.jsonl: line 1: `loss` is missing",
        ),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss": 2', '"loss": "2"+', 1),
            r"line 1 is not a JSON object",
        ),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss": 2', '"loss": true, "x": 2'),
            r"line 1: `loss` is wrong",
        ),
        ("feed.jsonl", lambda text: text[:-20], r"feed\.jsonl: line 6 is not a JSON object"),
        (
            "feed.jsonl",
            lambda text: text.replace("samples", "simples"),
            r"feed\.jsonl: line 1: `samples` is missing",
        ),
        (
            "feed.jsonl",
            lambda text: text.replace('"images": [', '"images": [null, '),
            r"line 1 has 4 samples and 5 image digests",
        ),
        ("math.json", lambda text: text[:50], r"math\.json cannot be read"),
        (
            "math.json",
            lambda text: text.replace('"schema": 2', '"schema": 3'),
            r"math\.json has schema 3",
        ),
        ("status.json", lambda text: "[]", r"status\.json must hold a JSON object"),
        ("manifest.json", lambda text: text[:50], r"manifest\.json cannot be read"),
        (
            "manifest.json",
            lambda text: '{"models": 3, "execution": {"gpus": 1}}',
            r"manifest\.json: state: Field required",
        ),
    ],
)
def test_damaged_file_is_named(
    run: Path, copy: Path, name: str, damage: Callable[[str], str], message: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    (copy / name).write_text(damage(text), encoding="utf-8")
    assert damage(text) != text
    with pytest.raises(DataError, match=message):
        compare_runs(run, copy)
    with pytest.raises(DataError, match=message):
        compare_runs(copy, run)
