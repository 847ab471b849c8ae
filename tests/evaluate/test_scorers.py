"""What the recordings do not show of a rule: fixed semantics, figures, refusals, invariances."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.errors import DataError
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Answered
from densekit.evaluate.scorers import (
    closed,
    get_scorer,
    gqa,
    letters,
    mme,
    mmmu,
    mmmu_choice,
    pope,
    sqa,
    ten_answers,
)
from densekit.evaluate.scorers.mathvista import edit_distance
from densekit.evaluate.scorers.mathvista_extract import by_rule
from densekit.evaluate.scorers.scorer import accuracy, one_gold, percent
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics
from tests.evaluate.made import question, score, scored

ABC = ("red", "green", "blue")
TEXTS = st.text(alphabet="aAbB.,?!;-'s 1\n", max_size=12)


# The 10-answer rule


@given(TEXTS, st.randoms(use_true_random=False))
def test_order_of_ten_answers_does_not_matter(text: str, rng: random.Random) -> None:
    people = [text, "b", "b", "a b", "1", "1", "1", "1", "x", "y"]
    worth = ten_answers.soft_accuracies(people)
    rng.shuffle(people)
    assert ten_answers.soft_accuracies(people) == worth
    assert set(worth.values()) <= {0.3, 0.6, 0.9, 1.0}


@given(TEXTS)
def test_normalised_answer_has_no_case_no_article_and_single_blanks(text: str) -> None:
    for semantics in ("faithful", "fixed"):
        words = ten_answers.normalise(text, semantics)
        assert words == words.lower() == " ".join(words.split())
        assert not {"a", "an", "the"} & set(words.split())


def test_people_agree_in_steps_of_three_tenths() -> None:
    people = ("a b", *("c d",) * 2, *("e f",) * 3, *("g h",) * 4)
    assert ten_answers.soft_accuracies(people) == {"b": 0.3, "c d": 0.6, "e f": 0.9, "g h": 1.0}
    result = scored("ten_answers", question(gold=people), "C D.")
    assert (result.score, result.parsed, result.gold) == (0.6, "c d", "g h")
    assert scored("ten_answers", question(gold=people), "z").score == 0
    with pytest.raises(DataError, match="10 people's answers, and this question has 9"):
        ten_answers.soft_accuracies(people[1:])


def test_fixed_normalisation_keeps_words_apart_and_numbers_together() -> None:
    fixed = {
        "1,000": "1000",
        "cat,dog": "cat dog",
        "cat?dog": "cat dog",
        "Wendy's": "wendy's",
        "x." * 40: "x" * 40,
        "3.5.": "3.5",
        "two, three": "2 3",
    }
    assert {text: ten_answers.normalise(text, "fixed") for text in fixed} == fixed


def test_question_with_other_than_ten_answers_is_named() -> None:
    with pytest.raises(DataError, match=r"question q7: the rule needs 10 .* has 1$"):
        scored("ten_answers", question("q7", "a"), "a")


# Letters


@pytest.mark.parametrize("name", ["mmb", "sqa", "seed", "mmmu"])
@pytest.mark.parametrize("gold", ["green", "b", "", "AB"])
def test_right_answer_must_be_a_letter(name: str, gold: str) -> None:
    scorer = get_protocol(name).scorer
    assert scorer is not None
    with pytest.raises(DataError, match=f"question 7: the right answer `{gold}` is no option's"):
        scored(scorer, question(7, gold, options=ABC), "B")


@pytest.mark.parametrize(
    ("name", "semantics"), [("mmbench", "faithful"), ("sqa", "faithful"), ("seed", "fixed")]
)
def test_letters_of_no_options_are_refused(name: str, semantics: Semantics) -> None:
    with pytest.raises(DataError, match="question 7 has no `options`"):
        scored(name, question(7, "A"), "A", semantics)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *((text, "B") for text in ("B", "b", " B. ", "(B)", "**B**", "B) green", "(B) x", "B: x")),
        *(
            (text, "B")
            for text in ("[B] x", "B, I think", "The answer is B", "answer: B.", "green.")
        ),
        *((text, "C") for text in ("Option C is right", "the choice (C)", "BLUE")),
        *(
            (text, None)
            for text in ("D", "", "A man", "Both B and C", "greenish", "it is D.", "...")
        ),
    ],
)
def test_letter_of_an_answer(text: str, letter: str | None) -> None:
    assert letters.letter_of(text, ABC) == letter


def test_option_texts_name_a_letter_only_when_one_has_them() -> None:
    assert letters.letter_of("same", ("same", "same")) is None
    assert letters.letter_of("Same!", ("x", " same ")) == "B"
    assert letters.letter_of("the answer is Copper", ("x", "y", "z")) is None
    assert letters.letter_of("'", ("'", "x")) is None


@given(st.text(max_size=20))
def test_letter_is_one_of_the_options(text: str) -> None:
    assert letters.letter_of(text, ABC) in {"A", "B", "C", None}


# GQA, exact match


def test_gqa_fixed_ignores_blanks() -> None:
    assert gqa.prediction(" No. ") == " no. " and gqa.prediction(" No. ", "fixed") == "no"
    assert scored("gqa", question(gold="Red"), "Red.").score == 0  # the gold is taken as it is
    assert scored("gqa", question(gold="red"), "Red.").score == 1


def test_exact_match_ignores_case_and_outer_blanks() -> None:
    assert scored("exact", question(gold=" Red"), "rED ").score == 1
    assert scored("exact", question(gold="red"), "red.").score == 0


def test_figures_by_category() -> None:
    scores = [score(1, 1.0, category="b"), score(2, 0.0, category="a"), score(3, 1.0, category="a")]
    assert accuracy(scores) == {
        "accuracy": pytest.approx(200 / 3),
        "accuracy/a": 50.0,
        "accuracy/b": 100.0,
    }
    assert list(accuracy(scores))[1:] == ["accuracy/a", "accuracy/b"]
    assert accuracy(scores[:1]) == {"accuracy": 100.0}
    with pytest.raises(DataError, match="no question"):
        percent([])


def test_one_right_answer_is_needed() -> None:
    with pytest.raises(DataError, match="question 7 has 2 right answers"):
        one_gold(question(7, ("a", "b")))


def test_question_without_image_is_a_cluster_of_its_own() -> None:
    assert scored("exact", question(7, image=None), "yes").cluster == "7"
    assert scored("exact", question(7, image="i9"), "yes").cluster == "i9"


# ScienceQA


def test_sqa_reports_questions_with_an_image() -> None:
    scores = [
        score(1, 1.0, category="image"),
        score(2, 0.0, category="image"),
        score(3, 0.0, category="text"),
    ]
    assert sqa.figures(scores) == {"image_accuracy": 50.0, "accuracy": pytest.approx(100 / 3)}


def test_closed_answers_beside_their_lower_bound_and_the_commonest_one() -> None:
    scores = [score(n, n % 2, category="a", gold="x" if n < 3 else "y") for n in range(4)]
    found = closed.figures(scores, "faithful")
    assert (found["accuracy"], found["right"], found["majority_class"]) == (50, 2, 75)
    assert closed.wilson_lower(0.5, 100) == pytest.approx(0.4038, abs=1e-4)
    assert closed.wilson_lower(1.0, 8) == pytest.approx(8 / (8 + closed.Z**2))


def test_sqa_two_stated_answers_are_none() -> None:
    for text in ("The answer is A. The answer is A.", "The answer is A. No: The answer is B. "):
        assert scored("sqa", question(gold="A", options=ABC), text).note == "unparsed"


def test_sqa_fixed_reads_letters_by_rules() -> None:
    asked = question(gold="A", options=("x", "y"))
    assert (scored("sqa", asked, "A.").score, scored("sqa", asked, "A.", "fixed").score) == (0, 1)
    failed = scored("sqa", asked, "A.")
    assert (failed.parsed, failed.note) == ("", "unparsed")
    with pytest.raises(DataError, match="right choice F is none of ABCDE"):
        scored("sqa", question(gold="F", options=("x",) * 6), "A")
    assert scored("sqa", question(gold="E", options=("x",) * 5), "E").score == 1


# POPE, yes or no


def test_pope_of_the_released_weights_by_the_published_counts() -> None:
    """LLaVA issue 626 prints TP/FP/TN/FN of the adversarial part and all three F1."""
    counts = pope.Confusion(tp=1183, fp=31, tn=1379, fn=317, said_yes=1214, answers=2910)
    assert round(counts.f1, 4) == 0.8718
    # The 1,500 questions with yes are the same in all parts: TP and FN are, FP follows from F1.
    negatives = {"random": 1410, "popular": 1500, "adversarial": 1500}
    false_yes = {"random": 31}
    for name, f1 in (("popular", 0.86287), ("adversarial", 0.84500)):
        false_yes[name] = round(2 * 1183 / f1 - 2 * 1183 - 317)
    scores: list[Score] = []
    for name, wrong in false_yes.items():
        said = {("yes", "yes"): 1183, ("no", "yes"): 317, ("yes", "no"): wrong}
        said["no", "no"] = negatives[name] - wrong
        scores += [
            score(0, float(parsed == gold), category=name, gold=gold, parsed=parsed)
            for (parsed, gold), count in said.items()
            for _ in range(count)
        ]
    figures = pope.figures(scores)
    assert len(scores) == 8910
    assert (round(figures["f1"], 2), round(figures["f1_pooled"], 2)) == (85.99, 85.97)
    assert round(figures["accuracy"], 2) == 87.01
    yes = 3 * 1183 + sum(false_yes.values())
    assert figures["yes_ratio"] == pytest.approx(100 * yes / 8910)


def test_pope_fixed_reads_words_in_any_case() -> None:
    said = {"NO": "no", "No!": "no", "no\n": "no", "isn't": None, "": None, "Yes. No": "yes",
            "It is not": "no", "A dog": None, "not yes": "yes"}  # fmt: skip
    assert {text: pope.said(text, "fixed") for text in said} == said


def test_pope_category_without_true_positive_has_no_f1() -> None:
    scores = [score(1, 1.0, gold="no", parsed="no"), score(2, 0.0, gold="yes", parsed="no")]
    with pytest.raises(DataError, match="no true positive"):
        pope.figures(scores)
    fixed = pope.figures(scores, "fixed")
    assert (fixed["f1"], fixed["f1_pooled"], fixed["accuracy"], fixed["yes_ratio"]) == (0, 0, 50, 0)
    for empty in ("pope", "yes_no"):
        with pytest.raises(DataError, match="no question to take an F1 of"):
            get_scorer(empty).figures([], "faithful")


def test_pope_labels_are_no_or_anything_else() -> None:
    assert scored("pope", question(gold="No"), "Yes").score == 1
    assert scored("pope", question(gold="no"), "No").score == 1


def test_unparsed_answer_counts_as_the_wrong_one() -> None:
    scores = [
        score(1, 1.0, gold="yes", parsed="yes"),
        score(2, 0.0, gold="no", parsed=""),
        score(3, 0.0, gold="yes", parsed=""),
    ]
    assert pope.confusion(scores) == pope.Confusion(tp=1, fp=1, tn=0, fn=1, said_yes=2, answers=3)


def test_yes_no_takes_the_two_words_alone() -> None:
    assert scored("yes_no", question(gold="Yes"), " YES ").score == 1
    other = scored("yes_no", question(gold="no"), "No.")
    assert (other.score, other.parsed, other.note) == (0, "", "unparsed")
    with pytest.raises(DataError, match="`red` is neither"):
        scored("yes_no", question(gold="red"), "yes")
    scores = [score(1, 1.0, gold="yes", parsed="yes")]
    assert set(get_scorer("yes_no").figures(scores, "faithful").values()) == {100.0}
    scores = [score(1, 1.0, gold="no", parsed="no"), score(2, 0.0, gold="yes", parsed="no")]
    assert get_scorer("yes_no").figures(scores, "faithful") == {
        "f1": 0.0,
        "accuracy": 50.0,
        "yes_ratio": 0.0,
    }


# MME


def _pairs(*rights: float, category: str = "count") -> list[Score]:
    return [
        score(f"{category}{i}", right, category=category, cluster=f"{category}{i // 2}")
        for i, right in enumerate(rights)
    ]


def test_mme_adds_accuracy_and_accuracy_plus() -> None:
    figures = mme.figures([*_pairs(1, 1, 1, 0), *_pairs(1, 1, category="code_reasoning")])
    assert (figures["perception"], figures["cognition"]) == (75 + 50, 200)
    assert (figures["accuracy/count"], figures["accuracy_plus/count"]) == (75, 50)
    assert set(mme.PERCEPTION) & set(mme.COGNITION) == set()
    assert (len(mme.PERCEPTION), len(mme.COGNITION)) == (10, 4)


def test_mme_refuses_other_data() -> None:
    with pytest.raises(DataError, match="count/count0 has 1"):
        mme.figures(_pairs(1))
    with pytest.raises(DataError, match="no category colour"):
        mme.figures(_pairs(1, 1, category="colour"))


def test_mme_needs_yes_or_no_for_a_right_answer() -> None:
    with pytest.raises(DataError, match="question 7: the right answer `y` is neither yes nor no"):
        scored("mme", question(7, "Y"), "yes")


def test_mme_fixed_ignores_blanks_in_front() -> None:
    assert (mme.said("   no"), mme.said("   no", "fixed")) == ("other", "no")
    other = scored("mme", question(gold="No"), "maybe")
    assert (other.score, other.parsed, other.note) == (0, "other", "unparsed")
    right = scored("mme", question(gold="No"), "No.")
    assert (right.score, right.note) == (1, "")


# MMBench


def test_mmbench_counts_a_question_when_every_rotation_is_right() -> None:
    figures = get_scorer("mmbench").figures
    rows = [score(7, 1.0), score(1_000_007, 0.0), score(8, 1.0), score(1_000_008, 1.0)]
    assert figures(rows, "faithful") == {"circular_accuracy": 50.0, "first_pass_accuracy": 100.0}
    assert figures(rows[::-1], "faithful") == figures(rows, "faithful")
    with pytest.raises(DataError, match=r"1 of 1 questions lack their first row \(index 7\)"):
        figures(rows[1:2], "faithful")
    with pytest.raises(DataError, match="one has `x`"):
        figures([score("x", 1.0)], "faithful")


def test_mmbench_reads_letters_by_rules() -> None:
    asked = question(gold="B", options=ABC)
    assert [scored("mmbench", asked, text).score for text in ("B. green", "green", "C")] == [
        1,
        1,
        0,
    ]


# SEED


def test_seed_type_without_right_answer_has_no_figure_unless_fixed() -> None:
    scores = [score(1, 1.0, category="image/1"), score(2, 0.0, category="video/10")]
    figures = get_scorer("seed").figures
    with pytest.raises(DataError, match="question type 10 is right"):
        figures(scores, "faithful")
    assert figures(scores, "fixed") == {
        "type 1": 100.0,
        "type 10": 0.0,
        "accuracy": 50.0,
        "image accuracy": 100.0,
        "video accuracy": 0.0,
    }
    assert "video accuracy" not in figures(scores[:1], "faithful")
    for category in ("image", "image/x"):
        with pytest.raises(DataError, match="categories are like image/3"):
            figures([score(1, 1.0, category=category)], "faithful")


def test_seed_type_with_a_question_unanswered_has_a_figure() -> None:
    scores = [score(1, 0.0, category="image/1"), score(2, 0.0, category="image/1", note="missing")]
    assert get_scorer("seed").figures(scores, "faithful")["type 1"] == 0


def test_seed_takes_the_letter_alone_unless_fixed() -> None:
    asked = question(gold="B", options=ABC)
    assert (scored("seed", asked, "B.").score, scored("seed", asked, "B.", "fixed").score) == (0, 1)


# MMMU


def test_mmmu_draws_in_the_questions_order_and_says_so() -> None:
    asked = [
        Answered(question(f"validation_Art_{i}", "A", category="Art", options=ABC), text)
        for i, text in enumerate(["no idea", "B", "none", "(A)"])
    ]
    scorer = get_scorer("mmmu")
    scores = scorer.score(asked, "faithful")
    rng = random.Random(42)
    drawn = [rng.choice("ABC"), rng.choice("ABC")]
    assert [entry.parsed for entry in scores] == [drawn[0], "B", drawn[1], "A"]
    assert [entry.note for entry in scores] == ["drawn 3", "", "drawn 3", ""]
    figures = scorer.figures(scores, "faithful")
    assert figures["accuracy"] == 100 * (1 + drawn.count("A")) / 4
    assert (figures["lowest"], figures["highest"]) == (25.0, 75.0)
    assert figures["domain/Art and Design"] == figures["accuracy"]
    assert not any(name.startswith("domain/") and "Art" not in name for name in figures)
    fixed = scorer.score(asked, "fixed")
    assert [entry.note for entry in fixed] == ["unparsed", "", "unparsed", ""]
    assert scorer.figures(fixed, "fixed")["lowest"] == 25.0


def test_mmmu_open_question_is_any_of_its_right_answers() -> None:
    asked = question("validation_Math_1", ("5", "five"), category="Math")
    right = scored("mmmu", asked, "The answer is five.")
    assert (right.score, right.gold, right.parsed) == (1, "5 | five", "five")
    assert scored("mmmu", asked, "six").score == 0


def test_mmmu_without_questions_has_no_figure() -> None:
    with pytest.raises(DataError):
        get_scorer("mmmu").figures([], "faithful")
    assert sum(map(len, mmmu.DOMAINS.values())) == 30


def test_mmmu_range_is_over_200_seeds_of_the_drawn_letters() -> None:
    assert mmmu.SEEDS == 200
    certain = [score(1, 1.0, category="Art", gold="A", parsed="A", note="drawn 1")]
    figures = get_scorer("mmmu").figures([*certain, score(2, 0.0, category="Art")], "faithful")
    assert (figures["lowest"], figures["highest"]) == (50.0, 50.0)


# MathVista


@given(st.text(alphabet="abc", max_size=6), st.text(alphabet="abc", max_size=6))
def test_edit_distance_is_a_distance(a: str, b: str) -> None:
    distance = edit_distance(a, b)
    assert (distance == 0) == (a == b) and distance == edit_distance(b, a)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    assert edit_distance(a + "x", b + "x") == distance


def test_rules_in_place_of_the_judge() -> None:
    for kind, text, found in (
        ("integer", 'The answer is "7". Or 8.', "7"),
        ("integer", "first 1,234 then -5 apples", "-5"),
        ("integer", "it costs 1,234 dollars", "1234"),
        ("float", "about 1.5e3 m", "1.5e3"),
        ("float", "only .5", ".5"),
        ("list", "so [1, 2], then [3]", "[3]"),
        ("list", "none", "none"),
        ("text", "5 or so", "5 or so"),
    ):
        assert by_rule(text, choices=None, answer_type=kind) == found
    assert by_rule("B: 5", choices=("5", "6"), answer_type="integer") == "B: 5"


def test_mathvista_notes_what_the_judge_would_have_read() -> None:
    asked = question(gold="5", answer_type="integer")
    plain, read = scored("mathvista", asked, "5"), scored("mathvista", asked, "It is 5.")
    assert (plain.score, plain.note) == (1, "") and (read.score, read.note) == (1, "judge")
    stated = scored("mathvista", asked, 'The answer is "5".')
    assert (stated.score, stated.note) == (1, "judge")
    asked = question(gold="1.2", answer_type="float", precision=1.0)
    assert (scored("mathvista", asked, "1.2").score, scored("mathvista", asked, "1.2").note) == (
        0,
        "unparsed",
    )
    assert scored("mathvista", asked, "1.2", "fixed").score == 1
    chosen = scored("mathvista", question(gold="green", options=ABC), "(B)")
    assert (chosen.score, chosen.parsed) == (1, "green")


@pytest.mark.parametrize("name", ["gqa", "pope", "ten_answers", "mme", "exact"])
def test_figures_do_not_depend_on_the_order_of_scores(name: str) -> None:
    rng = random.Random(1)
    scores = [
        score(
            i,
            float(rng.random() < 0.7),
            category="count",
            gold="yes",
            parsed=rng.choice(["yes", "no"]),
            cluster=f"i{i // 2}",
        )
        for i in range(40)
    ]
    figures = get_scorer(name).figures
    first = dict(figures(scores, "faithful"))
    rng.shuffle(scores)
    assert dict(figures(scores, "faithful")) == first


def test_mmmu_names_an_option_by_its_text_from_the_sixth_word_on() -> None:
    five, six = "we can see only green", "here we can see only green"
    assert mmmu_choice.parse(five, ABC) is None and mmmu_choice.parse(six, ABC) == "B"
    assert mmmu_choice.parse("we see it in here today", (" we", "zebra")) == "A"
    assert mmmu_choice.letters_of(["x"] * 26)[-1] == "Z" and mmmu_choice.letters_of("x") == "A"
    for options in ([], ["x"] * 27):
        with pytest.raises(DataError, match=f"with {len(options)} options"):
            mmmu_choice.letters_of(options)
