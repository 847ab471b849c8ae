"""Reading the evaluations of a run."""

from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.runs.evaluations import (
    EVALUATION_FILE,
    RESULTS_FILE,
    evaluations,
    latest,
    newest_results,
    read_results,
    read_scores,
)
from tests.support.evaluations import asked, evaluation, result, score, store


def test_what_is_stored_is_read(tmp_path: Path) -> None:
    scores = (score(1, 1.0), score(2, 0.0, note="unparsed", cluster="im"))
    folder = store(tmp_path, [result()], scores)
    assert folder.evaluation == evaluation()
    assert read_results(folder) == (result(),)
    assert read_scores(folder, "gqa") == scores


def test_oldest_first_and_the_latest_has_results(tmp_path: Path) -> None:
    assert latest(tmp_path) is None and evaluations(tmp_path) == ()
    old = store(tmp_path, [result()], age=20)
    new = store(tmp_path, [result()], made=evaluation(seed=1), age=10)
    begun = store(tmp_path, made=evaluation(seed=2))
    assert evaluations(tmp_path) == (old, new, begun)
    assert latest(tmp_path) == new


def test_all_questions_count_before_a_newer_part_of_them(tmp_path: Path) -> None:
    limited = result(questions=1, value=100.0)
    first = store(tmp_path, [limited], made=evaluation(seed=1), age=30)
    assert newest_results(tmp_path)["gqa"] == (first, limited)
    whole = store(tmp_path, [result(), result(semantics="fixed", value=60.0)], age=20)
    store(tmp_path, [limited], made=evaluation(seed=2), age=10)
    assert newest_results(tmp_path)["gqa"] == (whole, result())
    assert newest_results(tmp_path, "fixed")["gqa"][1].value == 60.0
    assert not limited.complete


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "fp16"},
        {"seed": 1},
        {"environment": "torch 9"},
        {"benchmarks": (asked(prompt_sha256="8" * 64),)},
        {"benchmarks": (asked(plan_sha256="8" * 64),)},
    ],
)
def test_the_key_of_answers_is_what_decides_them(changed: dict[str, object]) -> None:
    assert evaluation(**changed).key("gqa") != evaluation().key("gqa")


def test_mended_right_answers_are_not_in_the_key() -> None:
    mended = evaluation(benchmarks=(asked(data_sha256="8" * 64, available=3),))
    assert mended.key("gqa") == evaluation().key("gqa") and mended.sha256 != evaluation().sha256


def test_what_else_is_asked_is_not_in_the_key() -> None:
    other = asked(protocol=asked().protocol.model_copy(update={"name": "pope"}))
    both = evaluation(benchmarks=(asked(), other))
    assert both.key("gqa") == evaluation().key("gqa") != both.key("pope")


def test_damage_names_file_and_field(tmp_path: Path) -> None:
    folder = store(tmp_path, [result()], [score(1, 1.0)])
    (folder.path / RESULTS_FILE).write_text('{"results": [{"benchmark": 1}]}')
    with pytest.raises(DataError, match=r"results.json: results.0: benchmark"):
        read_results(folder)
    folder.scores("gqa", "faithful").write_text('{"question_id": "1"}\n')
    with pytest.raises(DataError, match=r"gqa.faithful.jsonl: line 1: cluster"):
        read_scores(folder, "gqa")
    (folder.path / EVALUATION_FILE).write_text('{"schema": 9}')
    with pytest.raises(DataError, match="schema 9"):
        _ = folder.evaluation
