"""Scoring stored answers: once for the same answers and scorers, and again where either changed."""

import os
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.evaluate import results
from densekit.evaluate.results import finish, lacks_answers
from densekit.files.json_files import read_json
from densekit.launch import evaluation as launch
from densekit.launch.launchers.local import Local
from densekit.runs.evaluations import RESULTS_FILE, EvaluationFolder, FlipRate, read_results
from densekit.runs.layout import Status, WorkDir, write_status
from densekit.spec.execution import Execution
from densekit.spec.roots import Roots
from tests.evaluate.scored_runs import made_run
from tests.support.evaluations import answered

LONG_AGO = 1e9


@pytest.fixture
def folder(tmp_path: Path) -> EvaluationFolder:
    """A whole evaluation of two questions, scored long ago."""
    run = made_run(tmp_path)
    made = answered(run, [("Is it red?", "yes", None, "yes"), ("Blue?", "no", None, "yes")])
    os.utime(made.path / RESULTS_FILE, (LONG_AGO, LONG_AGO))
    return made


def age(folder: EvaluationFolder) -> float:
    return (folder.path / RESULTS_FILE).stat().st_mtime


def test_what_was_scored_is_not_scored_again(
    folder: EvaluationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = read_results(folder)
    monkeypatch.setattr(results, "read_answers", lambda *_: pytest.fail("read again"))
    assert finish(folder) == stored and stored[0].value == 50


def test_other_scorers_score_again_and_equal_results_keep_their_time(
    folder: EvaluationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / RESULTS_FILE
    before, stored = read_json(path), read_results(folder)
    monkeypatch.setattr(results, "scorer_sources", lambda: {"gqa.py": "mended"})
    assert finish(folder) == stored
    after = read_json(path)
    assert after["scorers"] != before["scorers"] and age(folder) == LONG_AGO
    flipped = finish(folder, {"gqa": FlipRate(questions=2, flips=1)})
    assert flipped[0].flip_rate is not None and age(folder) > LONG_AGO


@pytest.mark.parametrize("name", ["scores/gqa.faithful.jsonl", RESULTS_FILE])
@pytest.mark.parametrize("left", [0, 40, None])
def test_what_follows_from_the_answers_is_made_again(
    folder: EvaluationFolder, name: str, left: int | None
) -> None:
    stored, path = read_results(folder), folder.path / name
    whole = path.read_bytes()
    if left is None:
        path.unlink()
    else:
        path.write_bytes(whole[:left])
    assert finish(folder) == stored == read_results(folder)
    assert path.read_bytes() == whole


def test_a_changed_answer_is_refused(folder: EvaluationFolder) -> None:
    path = folder.answers("gqa")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"text": "yes"', b'"text": "no"'))
    with pytest.raises(DataError, match="line 1 does not follow"):
        finish(folder)
    path.write_bytes(whole + b"{")
    with pytest.raises(DataError, match="more lines than questions were planned"):
        finish(folder)


@pytest.mark.parametrize("left", [None, 0, -5])
def test_lost_answers_of_a_complete_evaluation_are_asked_again(
    folder: EvaluationFolder, left: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Path] = []

    def start(run: WorkDir, *_: object, **__: object) -> int:
        started.append(run.path)
        return 0

    monkeypatch.setattr(launch, "start", start)
    write_status(folder.path, Status(state="complete", attempt=1))
    execution = Execution(roots=Roots(data=tmp_path, models=tmp_path, cache=tmp_path))
    assert not lacks_answers(folder)
    assert launch._carry_out(folder, execution, Local(), "") == 0 and not started
    path = folder.answers("gqa")
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    assert lacks_answers(folder)
    assert launch._carry_out(folder, execution, Local(), "") == 0 and started == [folder.path]
