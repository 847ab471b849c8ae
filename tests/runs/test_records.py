"""Metrics, feed and their hash chain: what is written, linked, cut, kept and read back."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.hashing import canonical_json
from densekit.files.json_files import read_jsonl
from densekit.runs.records import (
    FEED_FILE,
    METRICS_FILE,
    Position,
    Records,
    StepFeed,
    chain_next,
    read_feed,
    read_steps,
)
from tests.support.steps import STEP

IDS, IMAGES = ["0:aa", "1:bb"], ["cc", None]


def write(folder: Path, *steps: int, position: Position | None = None, **changes: Any) -> Position:
    with Records(folder, position or Position(chain="start")) as records:
        for step in steps:
            records.append(replace(STEP, step=step, **changes), IDS, IMAGES)
        return records.position()


def test_every_step_is_linked_to_the_one_before(tmp_path: Path) -> None:
    position = write(tmp_path, 1, 2)
    lines = read_steps(tmp_path / METRICS_FILE)
    assert [line.step for line in lines] == [1, 2]
    ids, images = (hashlib.sha256(text.encode()).hexdigest() for text in ("0:aa\n1:bb", "cc\n-"))
    assert all((line.ids, line.images) == (ids, images) for line in lines)
    linked = (
        f'{{"grad_norm":0.25,"ids":"{ids}","images":"{images}","loss":1.5,"lr":0.1,'
        '"masked_samples":0,"overflows":0,"samples":2,"schema":2,"step":1,'
        '"supervised_tokens":4,"tokens":9,"updated":true}'
    )
    assert lines[0].chain == hashlib.sha256(f"start\n{linked}".encode()).hexdigest()
    assert lines[1].chain == chain_next(lines[0].chain, lines[1]) == position.chain
    assert read_feed(tmp_path / FEED_FILE)[1] == StepFeed(step=2, samples=IDS, images=IMAGES)
    sizes = [(tmp_path / name).stat().st_size for name in (METRICS_FILE, FEED_FILE)]
    assert [position.metrics_bytes, position.feed_bytes] == sizes and position.steps == 2


def test_rates_of_parts_are_written_and_linked_where_there_are_any(tmp_path: Path) -> None:
    rates = {"language_model": 0.1, "connector": 0.1, "tower": 0.01}
    with Records(tmp_path, Position(chain="start")) as records:
        plain = records.append(STEP, IDS, IMAGES)
        rated = records.append(replace(STEP, step=2, part_lrs=rates), IDS, IMAGES)
    first, second = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert "part_lrs" not in first and '"part_lrs": {"language_model": 0.1' in second
    lines = read_steps(tmp_path / METRICS_FILE)
    assert lines == [plain, rated] and lines[1].part_lrs == rates
    other = replace(lines[1], part_lrs={**rates, "tower": 0.02})
    assert chain_next(plain.chain, lines[1]) == rated.chain != chain_next(plain.chain, other)


def test_the_bytes_of_a_line(tmp_path: Path) -> None:
    """Files of earlier versions hold these keys in this order (but for the times behind `seconds`),
    and their hashes are kept.
    """
    write(tmp_path, 1, loss=None)
    (line,) = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert line.startswith(
        '{"step": 1, "loss": null, "lr": 0.1, "grad_norm": 0.25, "updated": true, "overflows": 0, '
        '"samples": 2, "tokens": 9, "supervised_tokens": 4, "masked_samples": 0, "seconds": 0.5, '
        '"data_seconds": 0.0, "compute_seconds": 0.0, "tokens_per_second": 0.0, "ids": "'
    )
    assert list(json.loads(line))[-4:] == ["ids", "images", "chain", "schema"]
    assert (
        tmp_path / FEED_FILE
    ).read_text() == '{"step": 1, "samples": ["0:aa", "1:bb"], "images": ["cc", null]}\n'


CHANGES = {
    **{"loss": 1.5000000000000002, "grad_norm": None, "lr": 0.2, "updated": False, "overflows": 1},
    **{"samples": 3, "tokens": 8, "supervised_tokens": 5, "masked_samples": 1},
}


@pytest.mark.parametrize("name", CHANGES)
def test_hash_chain_covers_every_number_of_a_step(tmp_path: Path, name: str) -> None:
    """But for the times, which no other run repeats."""
    for folder in "abc":
        (tmp_path / folder).mkdir()
    chain = write(tmp_path / "a", 1).chain
    assert write(tmp_path / "b", 1, **{name: CHANGES[name]}).chain != chain
    times = {"seconds": 7.0, "data_seconds": 1.0, "compute_seconds": 6.0, "tokens_per_second": 1.3}
    times |= {"mfu": 0.4, "peak_memory_gib": 61.2}
    assert write(tmp_path / "c", 1, **times).chain == chain


@pytest.mark.parametrize("name", ["mfu", "peak_memory_gib"])
def test_a_line_has_what_only_a_gpu_tells_where_it_is_known(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, **{name: 0.41})
    write(tmp_path, 2, position=write(tmp_path, 1, **{name: 0.41}))
    known, unknown = read_jsonl(tmp_path / METRICS_FILE)
    assert known[name] == 0.41 and name not in unknown
    lines = read_steps(tmp_path / METRICS_FILE)
    assert [getattr(line, name) for line in lines] == [0.41, None]


def test_lines_from_before_data_and_compute_were_timed_are_read(tmp_path: Path) -> None:
    chain = write(tmp_path, 1).chain
    (line,) = read_jsonl(tmp_path / METRICS_FILE)
    for name in ("data_seconds", "compute_seconds", "tokens_per_second"):
        del line[name]
    (tmp_path / METRICS_FILE).write_text(json.dumps(line) + "\n")
    (old,) = read_steps(tmp_path / METRICS_FILE)
    assert (old.seconds, old.data_seconds, old.compute_seconds) == (0.5, 0.0, 0.0)
    assert chain_next("start", old) == chain


def test_chain_of_schema_1_is_verified_by_its_own_rule(tmp_path: Path) -> None:
    """Lines of earlier versions have no number, and their chain covers four values."""
    write(tmp_path, 1)
    (line,) = read_jsonl(tmp_path / METRICS_FILE)
    del line["schema"]
    linked = canonical_json({name: line[name] for name in ("ids", "images", "loss", "grad_norm")})
    line["chain"] = hashlib.sha256(b"start\n" + linked).hexdigest()
    (tmp_path / METRICS_FILE).write_text(json.dumps(line) + "\n")
    (old,) = read_steps(tmp_path / METRICS_FILE)
    assert old.schema == 1 and chain_next("start", old) == old.chain == line["chain"]
    (tmp_path / METRICS_FILE).write_text(json.dumps({**line, "schema": 3}) + "\n")
    with pytest.raises(DataError, match="line 1: `schema` is wrong"):
        read_steps(tmp_path / METRICS_FILE)


def test_resuming_cuts_and_keeps_the_lines_after_the_checkpoint(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    position = write(tmp_path, 1, 2)
    write(tmp_path, 3, 4, position=position)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    with Records(tmp_path, position, keep_in=kept) as records:
        records.append(replace(STEP, step=3, loss=9.0), IDS, IMAGES)
    assert [line.loss for line in read_steps(tmp_path / METRICS_FILE)] == [1.5, 1.5, 9.0]
    assert [line["step"] for line in read_jsonl(kept / FEED_FILE)] == [3, 4]
    assert (kept / METRICS_FILE).read_text().endswith('"lo')
    last = read_steps(tmp_path / METRICS_FILE)[2]
    assert last.chain == chain_next(position.chain, last)


def test_resuming_at_the_end_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    position = write(tmp_path, 1)
    Records(tmp_path, position, keep_in=tmp_path / "kept").__exit__(None, None, None)
    assert not list((tmp_path / "kept").iterdir())


def test_records_shorter_than_the_checkpoint_are_refused(tmp_path: Path) -> None:
    position = write(tmp_path, 1, 2)
    (tmp_path / FEED_FILE).write_bytes((tmp_path / FEED_FILE).read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"feed.jsonl is shorter than its checkpoint says \(\d+ of \d+ bytes\)"
    ):
        Records(tmp_path, position)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (METRICS_FILE, {"step": 3}, "line 2 is step 3: a line was edited, lost or doubled"),
        (METRICS_FILE, {"loss": "2"}, "line 2: `loss` is wrong: .*number"),
        (METRICS_FILE, {"lr": True}, "line 2: `lr` is wrong"),
        (METRICS_FILE, {"tokens": 1.5}, "line 2: `tokens` is wrong: .*integer"),
        (METRICS_FILE, {"updated": 1}, "line 2: `updated` is wrong"),
        (METRICS_FILE, {"chain": None}, "line 2: `chain` is wrong"),
        (FEED_FILE, {"step": 1}, "line 2 is step 1"),
        (FEED_FILE, {"samples": [1, 2]}, "line 2: `samples.0` is wrong: .*string"),
        (FEED_FILE, {"images": []}, "line 2 has 2 samples and 0 image digests"),
        (FEED_FILE, {"images": None}, "line 2: `images` is wrong: .*list"),
    ],
)
def test_a_line_of_another_shape_is_named(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path, 1, 2)
    path = tmp_path / name
    lines = read_jsonl(path)
    read = read_steps if name == METRICS_FILE else read_feed
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert len(read(path)) == 2
    lines[1] |= changes
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(DataError, match=rf"{name}: {message}.*; put back a copy of the file, or"):
        read(path)


@pytest.mark.parametrize("field", ["step", "loss", "grad_norm", "updated", "ids", "chain"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    write(tmp_path, 1)
    (line,) = read_jsonl(tmp_path / METRICS_FILE)
    (tmp_path / METRICS_FILE).write_text(json.dumps({**line, field: 0, "x": 1}).replace(field, "y"))
    with pytest.raises(DataError, match=f"line 1: `{field}` is missing"):
        read_steps(tmp_path / METRICS_FILE)


def test_every_operation_is_observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(
        durable, "observer", lambda operation, path: seen.append((operation, path.name))
    )
    durable.write_bytes(tmp_path / "a", b"1")
    durable.fsync(tmp_path / "a")
    durable.rename(tmp_path / "a", tmp_path / "b")
    assert seen == [("write", "a"), ("fsync", "a"), ("rename", "b"), ("fsync", tmp_path.name)]
