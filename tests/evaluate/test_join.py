"""Answers meet questions by id: order does not matter, and nothing is lost without a message."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.errors import DataError, UsageError
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Question, check_counts, join
from densekit.evaluate.scoring import score_answers
from tests.evaluate.made import answers, question

IDS = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12, unique=True)


@given(IDS, st.integers(0, 9))
def test_join_follows_the_questions_whatever_the_answers_order(ids: list[str], seed: int) -> None:
    given_answers = answers({name: f"answer {name}" for name in ids})
    random.Random(seed).shuffle(given_answers)
    joined = join([question(name) for name in ids], given_answers)
    assert [(pair.question.id, pair.text) for pair in joined] == [
        (name, f"answer {name}") for name in ids
    ]


@given(IDS, IDS)
def test_missing_and_unknown_ids_are_refused_with_counts(asked: list[str], said: list[str]) -> None:
    questions = [question(name) for name in asked]
    texts = answers(dict.fromkeys(said, "x"))
    missing, unknown = set(asked) - set(said), set(said) - set(asked)
    if not missing and not unknown:
        assert len(join(questions, texts)) == len(asked)
        return
    with pytest.raises(DataError) as refusal:
        join(questions, texts)
    text = str(refusal.value)
    assert text.startswith(f"{len(said)} answer{'s' * (len(said) != 1)} for {len(asked)} question")
    assert (f"{len(missing)} question" in text.partition(":")[2]) == bool(missing)
    assert ("to no question" in text) == bool(unknown)


def test_message_names_counts_and_the_first_ids() -> None:
    with pytest.raises(DataError) as refusal:
        join([question(i) for i in range(5)], answers({"0": "x", "7": "y"}))
    assert str(refusal.value) == (
        "2 answers for 5 questions: 4 questions without an answer (1, 2, 3, ...) and 1 answer to "
        "no question (7); score answers against the questions they were given to"
    )
    with pytest.raises(
        DataError, match=r"for 3 questions: 3 questions without an answer \(0, 1, 2\);"
    ):
        join([question(i) for i in range(3)], [])


def test_ids_that_come_twice_are_refused() -> None:
    twice = [*answers({"1": "a", "2": "b"}), *answers({"2": "c"})]
    with pytest.raises(DataError, match=r"3 answers, and 1 id more than once \(2\)"):
        join([question(1), question(2)], twice)
    with pytest.raises(DataError, match=r"2 questions, and 1 id more than once \(1\)"):
        join([question(1), question(1)], answers({"1": "a"}))


POPE = {"random": 2_910, "popular": 3_000, "adversarial": 3_000}


def _pope(counts: dict[str, int], images: int = 500) -> list[Question]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [
        question(i, category=name, image=f"i{i % images}" if i else None)
        for i, name in enumerate(names)
    ]


def test_other_version_of_popes_data_is_refused_with_both_counts() -> None:
    protocol = get_protocol("pope")
    check_counts(protocol, _pope(POPE))
    later = _pope({**POPE, "random": 3_000})
    with pytest.raises(DataError) as refusal:
        check_counts(protocol, later)
    assert (
        "POPE has 8,910 questions on 500 images (2,910 random, 3,000 popular, 3,000 adversarial) "
        "(AoiDragon/POPE at commit e3e3926), and this data has 9,000 questions on 500 images "
        "(3,000 random, 3,000 popular, 3,000 adversarial): it is another version"
    ) in str(refusal.value)
    moved = {"random": 3_000, "popular": 2_910, "adversarial": 3_000}
    with pytest.raises(DataError, match="3,000 random, 2,910 popular"):
        check_counts(protocol, _pope(moved))
    with pytest.raises(DataError, match=r"this data has 8,910 questions on 499 images \("):
        check_counts(protocol, _pope(POPE, images=499))
    with pytest.raises(DataError, match=r"this data has 1 question on 0 images \("):
        check_counts(protocol, _pope({"random": 1}))


def test_counts_are_of_questions_and_not_of_their_rotations() -> None:
    protocol = get_protocol("mmb")
    rows = [
        question(rotation * 1_000_000 + base, rotation_of=str(base))
        for base in range(1_164)
        for rotation in range(2)
    ]
    check_counts(protocol, rows)
    with pytest.raises(
        DataError, match=r"MMB has 1,164 questions .* this data has 1,163 questions:"
    ):
        check_counts(protocol, rows[:-2])
    for name in ("mmb", "mmb_cn"):
        with pytest.raises(DataError, match="this data has 1,164 questions in one order alone"):
            check_counts(get_protocol(name), rows[::2])
    check_counts(get_protocol("mmb_cn"), rows[:3])


def test_protocol_without_counts_takes_any_number() -> None:
    check_counts(get_protocol("vizwiz"), [question(1)])


def test_result_holds_figures_notes_and_every_score() -> None:
    questions = [question(1, "red", category="query"), question(2, "no", category="verify")]
    result = score_answers(
        get_protocol("gqa"), questions, answers({"2": "Yes", "1": "Red."}), whole=False
    )
    assert (result.value, result.questions, result.semantics) == (50.0, 2, "faithful")
    assert result.notes == {}
    assert result.figures == {
        "accuracy": 50.0,
        "accuracy/query": 100.0,
        "accuracy/verify": 0.0,
    }
    assert [(score.question_id, score.score, score.cluster) for score in result.scores] == [
        ("1", 1.0, "i1"),
        ("2", 0.0, "i1"),
    ]
    with pytest.raises(DataError, match="GQA has 12,578 questions"):
        score_answers(get_protocol("gqa"), questions, answers({"1": "a", "2": "b"}))


def test_notes_are_counted() -> None:
    questions = [question(i, "A", options=("x", "y"), category="image") for i in range(3)]
    texts = answers({"0": "A", "1": "maybe", "2": "A."})
    result = score_answers(get_protocol("sqa"), questions, texts, whole=False)
    assert result.notes == {"unparsed": 2}


def test_benchmarks_of_a_judge_are_not_scored() -> None:
    with pytest.raises(UsageError, match=r"MM-Vet is scored by a judge: .* switched off"):
        score_answers(get_protocol("mmvet"), [], [])


def test_metric_without_a_value_names_the_benchmark() -> None:
    with pytest.raises(DataError, match=r"POPE \(faithful\) has no value: no true positive"):
        score_answers(get_protocol("pope"), [question(1, "no")], answers({"1": "no"}), whole=False)
