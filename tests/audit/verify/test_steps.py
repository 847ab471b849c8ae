"""Verifying what a run fed and measured: metrics, feed, hash chain and certificate."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from tests.support.audit import check_names, edit, edit_line, edit_manifest, failures
from tests.support.runs import train

# What the run fed and measured


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": 2.0},
            "step 4 does not fit the hash chain: one of its numbers or its chain was edited",
        ),
        ({"grad_norm": None}, "step 4 does not fit the hash chain"),
        ({"chain": "0" * 64}, "step 4 does not fit the hash chain"),
        ({"ids": "0" * 64}, r"step 4: `ids` does not match the feed: \S*metrics.jsonl was edited"),
        (
            {"images": "0" * 64},
            r"step 4: `images` does not match the feed: \S*metrics.jsonl was edited",
        ),
        ({"step": 5}, "line 4 is step 5: a line was edited, lost or doubled"),
    ],
)
def test_edited_metrics_line(run: Path, values: dict[str, Any], message: str) -> None:
    edit_line(run / "metrics.jsonl", 4, **values)
    failed = failures(run)
    assert set(failed) == {"steps", "metrics"} and re.search(message, failed["steps"])
    assert "retrain" in failed["steps"]


def test_file_hash_covers_what_the_chain_does_not(run: Path) -> None:
    edit_line(run / "metrics.jsonl", 4, seconds=1.0)
    failed = failures(run)
    assert set(failed) == {"metrics"}
    assert f"{run}/metrics.jsonl was changed: its SHA-256 is " in failed["metrics"]


def test_shortened_chain_misses_its_recorded_end(run: Path) -> None:
    path = run / "metrics.jsonl"
    edit(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    edit(run / "feed.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    edit_manifest(run, metrics_sha256=file_sha256(path))
    failed = failures(run)
    assert (
        "ends after 5 steps with chain" in failed["steps"]
        and "the manifest says 6 steps" in failed["steps"]
    )
    assert "holds 5 steps" in failed["certificate"] and "says 6" in failed["certificate"]


@pytest.mark.parametrize(
    ("name", "item"),
    [("samples", "12:0000000000000000"), ("images", "0" * 16)],
    ids=["samples", "images"],
)
def test_edited_feed_line(run: Path, name: str, item: str) -> None:
    line = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[1])
    edit_line(run / "feed.jsonl", 2, **{name: [item, *line[name][1:]]})
    failed = failures(run)
    kind = {"samples": "ids", "images": "images"}[name]
    assert (
        f"step 2: `{kind}` does not match the feed: {run}/feed.jsonl was edited" in failed["steps"]
    )
    assert set(failed) == ({"steps", "certificate"} if name == "samples" else {"steps"})


def test_swapped_samples(run: Path) -> None:
    samples = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[2])[
        "samples"
    ]
    edit_line(run / "feed.jsonl", 3, samples=[samples[1], samples[0], *samples[2:]])
    assert "step 3: `ids`" in failures(run)["steps"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_truncated_records_of_a_complete_run(run: Path, name: str) -> None:
    edit(run / name, lambda text: text[:-30])
    assert re.search(rf"{name}: line 6 is not a JSON object", failures(run)["steps"])


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_half_written_line_of_a_killed_run_is_a_warning(
    world: Path, tmp_path: Path, name: str
) -> None:
    run = train(world, tmp_path, stop_after=3)
    edit(run / name, lambda text: text + '{"step": 4, "lo')
    checks = verify_run(run)
    assert check_names(checks, "fail") == [] and "steps" in check_names(checks, "warn")


def test_feed_of_a_killed_run_may_be_one_step_ahead(
    world: Path, original: Path, tmp_path: Path
) -> None:
    run = train(world, tmp_path, stop_after=3)
    lines = (original / "feed.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "feed.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    assert failures(run) == {}
    (run / "feed.jsonl").write_text("".join(lines[:5]), encoding="utf-8")
    assert "feed.jsonl has 5 steps" in failures(run)["steps"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_lost_last_line(run: Path, name: str) -> None:
    edit(run / name, lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    assert re.search(r"ends before step 6|metrics.jsonl has 5 steps", failures(run)["steps"])


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_deleted_records(run: Path, name: str) -> None:
    (run / name).unlink()
    assert f"{run}/{name} is missing" in failures(run)["steps"]


@pytest.mark.parametrize("field", ["sha256", "steps", "samples_dropped", "schema"])
def test_edited_certificate(run: Path, field: str) -> None:
    value = "0" * 64 if field == "sha256" else 99
    write_json(run / "certificate.json", {**read_json(run / "certificate.json"), field: value})
    assert list(failures(run)) == ["certificate"]


def test_certificate_of_other_samples(run: Path) -> None:
    certificate = {**read_json(run / "certificate.json"), "sha256": "0" * 64}
    write_json(run / "certificate.json", certificate)
    recorded = read_json(run / "manifest.json")["certificate"]
    edit_manifest(run, certificate={name: certificate[name] for name in recorded})
    assert f"the hash of {run}/feed.jsonl is not the one in" in failures(run)["certificate"]
