"""checkpoint.json: its seal, its types, its counts, and which checkpoint counts as whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, write_json
from densekit.runs.checkpoint import (
    STATE_FILE,
    newest_whole,
    read_checkpoint,
    step_of,
)
from densekit.runs.layout import RunDir
from densekit.runs.record_check import check_up_to
from tests.support.audit import edit_line
from tests.support.runs import flip_byte, make_world, position_after, train, write_checkpoint

STEPS = 4


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that stopped after four steps, with checkpoints of steps 2 and 4."""
    stopped = train(make_world(tmp_path / "world"), tmp_path / "runs", stop_after=STEPS)
    write_checkpoint(stopped, position_after(stopped, 2))
    return RunDir(stopped)


@pytest.fixture
def newest(run: RunDir) -> Path:
    return run.checkpoints / "step-00000004"


def test_what_is_written_is_read(run: RunDir, newest: Path) -> None:
    state = read_checkpoint(newest, run_sha256=run.sha256)
    assert (state.step, state.optimizer_steps, state.summary.steps) == (4, 4, 4)
    assert state.as_json() == read_json(newest / STATE_FILE)
    check_up_to(state.records, run=run.path, run_sha256=run.sha256)
    assert newest_whole(run.checkpoints) == newest and step_of(newest) == 4


def test_any_edited_digit_breaks_the_seal(newest: Path) -> None:
    path = newest / STATE_FILE
    text = path.read_text(encoding="utf-8")
    digits = [place for place, letter in enumerate(text) if letter.isdecimal()]
    for place in digits:
        other = "1" if text[place] != "1" else "2"
        path.write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")
        with pytest.raises(DataError, match=r"it was edited|has schema|cannot be read"):
            read_checkpoint(newest)


RESEALED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "optimizer_steps": (lambda value: {"optimizer_steps": 5}, "optimizer_steps is 5, after step 4"),
    "too few": (lambda value: {"optimizer_steps": 3}, "optimizer_steps is 3, after step 4 it is 4"),
    "step": (lambda value: {"step": 3}, "records.steps is 4, after step 3 it is 3"),
    "records": (
        lambda value: {"records": {**value["records"], "steps": 3}},
        "records.steps is 3, after step 4",
    ),
    "summary": (
        lambda value: {"summary": {**value["summary"], "steps": 9}},
        "summary.steps is 9, after step 4",
    ),
    "bytes": (
        lambda value: {"records": {**value["records"], "feed_bytes": 0}},
        "feed_bytes are too few",
    ),
    "overflows": (lambda value: {"overflows_in_a_row": 1}, "is more than summary.overflows"),
    "text": (lambda value: {"step": "4"}, "step: "),
    "truth": (lambda value: {"overflows_in_a_row": False}, "overflows_in_a_row: "),
    "null": (lambda value: {"records": None}, "records: "),
    "summary text": (
        lambda value: {"summary": {**value["summary"], "tokens": "7"}},
        "summary.tokens: ",
    ),
    "more": (lambda value: {"more": 1}, "more: "),
    "no file": (lambda value: {"files": {}}, "files: "),
    "outside": (
        lambda value: {"files": {"../../x": value["files"]["rank-0000.safetensors"]}},
        "files must be one per rank, of 1",
    ),
    "rank missing": (lambda value: {"world_size": 2}, "files must be one per rank, of 2"),
    "hash": (
        lambda value: {"files": {"rank-0000.safetensors": {"sha256": "", "bytes": 1}}},
        "files.rank-0000.safetensors.sha256: ",
    ),
    "schema": (lambda value: {"schema": 1}, "has schema 1, this version reads 2"),
    "another run": (lambda value: {"run": "0" * 64}, "belongs to another run"),
}


@pytest.mark.parametrize("name", RESEALED)
def test_values_that_do_not_fit_are_refused_although_sealed(
    run: RunDir, newest: Path, name: str
) -> None:
    change, message = RESEALED[name]
    value = read_json(newest / STATE_FILE)
    write_json(newest / STATE_FILE, sealed({**value, **change(value)}))
    with pytest.raises(DataError) as caught:
        read_checkpoint(newest, run_sha256=run.sha256)
    assert message in str(caught.value) and "away" in str(caught.value)


def test_a_renamed_folder_is_refused(newest: Path) -> None:
    renamed = newest.rename(newest.with_name("step-00000005"))
    with pytest.raises(DataError, match="is of step 4, its folder is step-00000005"):
        read_checkpoint(renamed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / STATE_FILE).write_text("null"),
        lambda folder: (folder / STATE_FILE).unlink(),
        lambda folder: (folder / "rank-0000.safetensors").unlink(),
        lambda folder: (folder / "rank-0000.safetensors").write_bytes(b""),
    ],
)
def test_the_newest_whole_checkpoint(
    run: RunDir, newest: Path, damage: Callable[[Path], Any]
) -> None:
    (run.checkpoints / "step-00000009.bak").mkdir()  # a copy that somebody made
    damage(newest)
    older = run.checkpoints / "step-00000002"
    assert newest_whole(run.checkpoints) == older
    damage(older)
    assert newest_whole(run.checkpoints) is None


def test_records_before_a_checkpoint_are_checked(run: RunDir, newest: Path) -> None:
    """What lies behind the checkpoint may be damaged: it is trained again."""
    older = read_checkpoint(run.checkpoints / "step-00000002").records
    edit_line(run.path / "feed.jsonl", 3, images=[None] * 4)
    check_up_to(older, run=run.path, run_sha256=run.sha256)
    with pytest.raises(DataError):
        check_up_to(read_checkpoint(newest).records, run=run.path, run_sha256=run.sha256)


@pytest.mark.parametrize(("name", "place"), [("feed.jsonl", 30), ("metrics.jsonl", 40)])
def test_a_flipped_bit_of_the_records_is_found(run: RunDir, name: str, place: int) -> None:
    position = read_checkpoint(run.checkpoints / "step-00000002").records
    flip_byte(run.path / name, place)
    with pytest.raises(DataError, match=name):
        check_up_to(position, run=run.path, run_sha256=run.sha256)
