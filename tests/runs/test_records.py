"""Metrics, feed and their hash chain: what is written, linked, cut and kept."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.json_files import read_jsonl
from densekit.runs.records import FEED_FILE, METRICS_FILE, Position, Records, chain_next

RECORD = {"loss": 1.5, "grad_norm": 0.25, "lr": 0.1}
IDS, IMAGES = ["0:aa", "1:bb"], ["cc", None]


def write(folder: Path, *steps: int, position: Position | None = None, **changes: Any) -> Position:
    with Records(folder, position or Position(chain="start")) as records:
        for step in steps:
            records.append({**RECORD, "step": step, **changes}, IDS, IMAGES)
        return records.position()


def test_every_step_is_linked_to_the_one_before(tmp_path: Path) -> None:
    position = write(tmp_path, 1, 2)
    lines = read_jsonl(tmp_path / METRICS_FILE)
    assert [line["step"] for line in lines] == [1, 2]
    ids, images = (hashlib.sha256(text.encode()).hexdigest() for text in ("0:aa\n1:bb", "cc\n-"))
    assert all((line["ids"], line["images"]) == (ids, images) for line in lines)
    linked = json.dumps(
        {"grad_norm": 0.25, "ids": ids, "images": images, "loss": 1.5}, separators=(",", ":")
    )
    assert lines[0]["chain"] == hashlib.sha256(f"start\n{linked}".encode()).hexdigest()
    assert lines[1]["chain"] == chain_next(lines[0]["chain"], lines[1]) == position.chain
    assert read_jsonl(tmp_path / FEED_FILE)[1] == {"step": 2, "samples": IDS, "images": IMAGES}
    sizes = [(tmp_path / name).stat().st_size for name in (METRICS_FILE, FEED_FILE)]
    assert [position.metrics_bytes, position.feed_bytes] == sizes and position.steps == 2


@pytest.mark.parametrize("change", [{"loss": 1.5000000000000002}, {"grad_norm": None}])
def test_the_chain_hangs_on_numbers(tmp_path: Path, change: dict[str, Any]) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert write(tmp_path / "a", 1).chain != write(tmp_path / "b", 1, **change).chain
    assert write(tmp_path / "a", 1).chain == write(tmp_path / "b", 1, lr=7).chain


def test_going_on_cuts_and_keeps_what_lies_behind(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    position = write(tmp_path, 1, 2)
    write(tmp_path, 3, 4, position=position)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    with Records(tmp_path, position, keep_in=kept) as records:
        records.append({**RECORD, "step": 3, "loss": 9.0}, IDS, IMAGES)
    assert [line["loss"] for line in read_jsonl(tmp_path / METRICS_FILE)] == [1.5, 1.5, 9.0]
    assert [line["step"] for line in read_jsonl(kept / FEED_FILE)] == [3, 4]
    assert (kept / METRICS_FILE).read_text().splitlines()[2] == '{"step": 5, "lo'
    assert read_jsonl(tmp_path / METRICS_FILE)[2]["chain"] == chain_next(
        position.chain, read_jsonl(tmp_path / METRICS_FILE)[2]
    )


def test_nothing_behind_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    position = write(tmp_path, 1)
    Records(tmp_path, position, keep_in=tmp_path / "kept").__exit__(None, None, None)
    assert not list((tmp_path / "kept").iterdir())


def test_records_that_were_cut_off_are_refused(tmp_path: Path) -> None:
    position = write(tmp_path, 1, 2)
    (tmp_path / FEED_FILE).write_bytes((tmp_path / FEED_FILE).read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"feed.jsonl is shorter than its checkpoint says \(\d+ of \d+ bytes\)"
    ):
        Records(tmp_path, position)


def test_every_operation_is_observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(
        durable, "observer", lambda operation, path: seen.append((operation, path.name))
    )
    durable.write_bytes(tmp_path / "a", b"1")
    durable.fsync(tmp_path / "a")
    durable.rename(tmp_path / "a", tmp_path / "b")
    assert seen == [("write", "a"), ("fsync", "a"), ("rename", "b"), ("fsync", tmp_path.name)]
    assert (tmp_path / "b").read_bytes() == b"1" and not (tmp_path / "a").exists()
