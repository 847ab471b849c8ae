"""MME: accuracy and accuracy+ (both questions of an image right), summed over categories.

Source: the definition of its authors' tool; lmms-eval's aggregation gives the same sums.
"""

from collections import defaultdict
from collections.abc import Sequence

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.scorer import Scorer, each, percent, score_of, yes_or_no
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
PREFIX = 4
"""Characters in which yes, and then no, is looked for."""
PER_IMAGE = 2


def said(text: str, semantics: Semantics = "faithful") -> str:
    """`yes`, `no` or `other`. Fixed: blanks in front do not count."""
    start = (text.lstrip() if semantics == "fixed" else text).lower()[:PREFIX]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 where yes or no is the right one, whatever its case. Raises DataError for another right
    answer.
    """
    gold = yes_or_no(question)
    parsed = said(text, semantics)
    note = "unparsed" if parsed == "other" else ""
    return score_of(question, parsed, gold=gold, score=float(parsed == gold), note=note)


def figures(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`perception`, which is reported, and `cognition`; accuracy, accuracy+ and their sum of each
    category.

    Raises DataError for an unknown category, or an image with another number of questions than two.
    """
    images: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in scores:
        images[entry.category][entry.cluster].append(entry.score)
    if unknown := sorted(images.keys() - {*PERCEPTION, *COGNITION}):
        raise DataError(f"MME has no category {', '.join(unknown)}")
    found: dict[str, float] = {}
    for name, pairs in sorted(images.items()):
        for image, rights in pairs.items():
            if len(rights) != PER_IMAGE:
                raise DataError(
                    f"MME asks {PER_IMAGE} questions about an image; {name}/{image} has "
                    f"{len(rights)}"
                )
        found[f"accuracy/{name}"] = percent(right for rights in pairs.values() for right in rights)
        found[f"accuracy_plus/{name}"] = percent(min(rights) for rights in pairs.values())
        found[f"score/{name}"] = found[f"accuracy/{name}"] + found[f"accuracy_plus/{name}"]
    return {"perception": _sum(found, PERCEPTION), "cognition": _sum(found, COGNITION), **found}


def _sum(found: dict[str, float], names: Sequence[str]) -> float:
    return sum((found.get(f"score/{name}", 0.0) for name in names), 0.0)


SCORER = Scorer(score=each(score), figures=figures)
