"""MMMU: letters and open answers; what rests on drawn letters is shown as a range over seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from densekit.evaluate.questions import Answered
from densekit.evaluate.scorers import mmmu_choice, mmmu_open
from densekit.evaluate.scorers.scorer import Scorer, by_category, percent, right_letter, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

SEEDS = 200
"""Over which the range of the drawn letters is taken."""
DRAWN = "drawn"
DOMAINS: dict[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}


def subject_of(question_id: str) -> str:
    """`validation_Art_Theory_3` -> `Art_Theory`."""
    return "_".join(question_id.split("_")[1:-1])


def score_all(answered: Sequence[Answered], semantics: Semantics) -> list[Score]:
    """The scores in order. A letter that a response does not name is drawn (seed 42); fixed: it is
    wrong.
    """
    draws = mmmu_choice.Draws()
    scores = []
    for question, text in answered:
        if not question.options:
            parsed = mmmu_open.parse(text)
            right = mmmu_open.right(question.gold, parsed)
            said = ", ".join(str(value).strip() for value in parsed)
            gold = " | ".join(question.gold)
            scores.append(score_of(question, said, gold=gold, score=float(right)))
            continue
        letter, note = mmmu_choice.parse(text, question.options), ""
        gold = right_letter(question)
        if letter is None and semantics == "faithful":
            letter, note = draws.letter(question.options), f"{DRAWN} {len(question.options)}"
        scores.append(score_of(question, letter, gold=gold, score=float(letter == gold), note=note))
    return scores


def figures(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`accuracy`, which is reported, `lowest` and `highest` over 200 seeds, each subject's and
    domain's accuracy.
    """
    accuracy = percent(score.score for score in scores)
    by_seed = [100 * _redrawn(scores, seed) / len(scores) for seed in range(SEEDS)]
    return {
        "accuracy": accuracy,
        "lowest": min(by_seed),
        "highest": max(by_seed),
        **by_category(scores),
        **{
            f"domain/{name}": 100 * share
            for name, (count, share) in domains(grouped(scores)).items()
            if count
        },
    }


def grouped(scores: Sequence[Score]) -> dict[str, list[float]]:
    """The scores of each subject."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for score in scores:
        found[score.category].append(score.score)
    return dict(found)


def domains(subjects: Mapping[str, Sequence[float]]) -> dict[str, tuple[int, float]]:
    """Number and accuracy (0 to 1) of each domain's questions; 0 where there are none."""
    found = {}
    for domain, names in DOMAINS.items():
        rights = [right for name in names for right in subjects.get(name, ())]
        found[domain] = (len(rights), sum(rights) / len(rights) if rights else 0.0)
    return found


def _redrawn(scores: Sequence[Score], seed: int) -> float:
    """The number of right answers with the letters drawn from another seed."""
    draws = mmmu_choice.Draws(seed)
    total = 0.0
    for score in scores:
        if score.note.startswith(DRAWN):
            options = [""] * int(score.note.removeprefix(DRAWN))
            total += draws.letter(options) == score.gold
        else:
            total += score.score
    return total


SCORER = Scorer(score=score_all, figures=figures)
