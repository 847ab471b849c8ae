"""Calibration records: what is measured, in which environment it holds, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.evaluate import calibration
from densekit.evaluate.calibration import (
    calibrate_runner,
    calibrate_scorer,
    runner_environment,
    scorer_environment,
)
from densekit.evaluate.protocols import get_protocol
from densekit.files.json_files import write_json
from densekit.recipes.paper import Paper, load_paper
from densekit.runs.calibrations import (
    CALIBRATION_FILE,
    Calibrations,
    add_calibrations,
    read_calibrations,
)
from densekit.runs.environment import ENVIRONMENT_FILE
from densekit.runs.evaluations import EVALUATION_FILE
from tests.evaluate.scored_runs import drawn, evaluated

LLAVA = "llava-v1.5-7b"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


def test_the_runner_by_released_weights(tmp_path: Path, paper: Paper) -> None:
    folder = tmp_path / LLAVA
    where = evaluated(folder, drawn(0.5))
    evaluated(folder, drawn(0.5), "mmmu", name="1" * 16)
    (record,) = calibrate_runner(paper, folder, model=LLAVA)
    assert (record.step, record.benchmark, record.expected, record.tolerance) == (
        "runner",
        "gqa",
        61.95,
        0.2,
    )
    assert record.environment == runner_environment(where) and record.questions == 600
    assert record.evidence == "1" * 64 and not record.passed
    for value, passed in ((62.15, True), (62.16, False), (61.75, True), (61.74, False)):
        assert record.model_copy(update={"value": value}).passed is passed


def test_an_environment_is_versions_device_kernel_and_dtype(tmp_path: Path) -> None:
    where = evaluated(tmp_path, drawn(0.5))
    first = runner_environment(where)
    path = where.path / EVALUATION_FILE
    value = json.loads(path.read_text())
    for change in (
        {"environment": "b"},
        {"device": "cuda"},
        {"kernel": "flash"},
        {"dtype": "bf16"},
    ):
        write_json(path, {**value, **change})
        assert runner_environment(where) != first, change
    write_json(path, {**value, "environment": None, "seed": 7})
    unknown = runner_environment(where)
    write_json(where.path / ENVIRONMENT_FILE, {"packages": {"torch": "2.13.0", "rich": "1"}})
    known = runner_environment(where)
    assert unknown != known
    write_json(where.path / ENVIRONMENT_FILE, {"packages": {"torch": "2.13.0", "rich": "2"}})
    assert runner_environment(where) == known


def test_only_whole_evaluations_calibrate(tmp_path: Path, paper: Paper) -> None:
    evaluated(tmp_path, drawn(0.5), available=12_578)
    with pytest.raises(
        DataError, match="has no whole evaluation of gqa, mmb, mme, pope, sqa, text"
    ):
        calibrate_runner(paper, tmp_path, model=LLAVA)
    with pytest.raises(
        UsageError, match=r"is calibrated with llava-v1\.5-7b, not with llava-v1\.6"
    ):
        calibrate_runner(paper, tmp_path, model="llava-v1.6")


def test_a_scorer_by_an_answer_file(
    tmp_path: Path, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    rows = [{"id": str(n), "text": "What?", "image": f"i{n}", "gold": ["cat"]} for n in range(50)]
    said = [{"question_id": str(n), "text": "cat" if n < 31 else "dog"} for n in range(50)]
    for path, lines in ((questions, rows), (answers, said)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    gqa = get_protocol("gqa").model_copy(update={"expected": None})
    monkeypatch.setattr(calibration, "get_protocol", lambda _: gqa)
    record = calibrate_scorer(paper, answers, model=LLAVA, benchmark="gqa", questions=questions)
    assert record.passed and record.value == 62 and record.questions == 50
    assert record.environment == scorer_environment(gqa)
    with pytest.raises(
        UsageError, match=r"no source says what llava-v1\.5-7b scores on seed; a sco"
    ):
        calibrate_scorer(paper, answers, model=LLAVA, benchmark="seed", questions=questions)


def test_changed_scorers_are_no_longer_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    gqa = get_protocol("gqa")
    first = scorer_environment(gqa)
    assert scorer_environment(gqa.model_copy(update={"figure": "median"})) != first
    monkeypatch.setattr(calibration, "scorer_sources", lambda: {"gqa.py": "changed"})
    assert scorer_environment(gqa) != first


def test_newer_records_replace_older_ones(tmp_path: Path, paper: Paper) -> None:
    folder, runs = tmp_path / LLAVA, tmp_path / "runs"
    evaluated(folder, drawn(0.5))
    (record,) = calibrate_runner(paper, folder, model=LLAVA)
    assert read_calibrations(runs) == Calibrations()
    add_calibrations(runs, [record])
    better = record.model_copy(update={"value": 61.9})
    other = record.model_copy(update={"environment": "elsewhere"})
    add_calibrations(runs, [better, other])
    assert set(read_calibrations(runs).records) == {better, other}
    (runs / CALIBRATION_FILE).write_text('{"schema": 1, "records": [{"step": "guess"}]}')
    with pytest.raises(DataError, match=r"records\.0\.step: .*calibrate again"):
        read_calibrations(runs)
    (runs / CALIBRATION_FILE).unlink()
    os.mkfifo(runs / CALIBRATION_FILE)
    with pytest.raises(DataError, match="not a regular file"):
        read_calibrations(runs)
