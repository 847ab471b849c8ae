"""Recorded figures of whole runs: what the official scripts printed for a file of answers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from densekit.evaluate.questions import Answered, Question, join
from densekit.evaluate.scorers import (
    gqa,
    mathvista,
    mmbench,
    mme,
    mmmu,
    mmmu_open,
    pope,
    seed,
    sqa,
    ten_answers,
    textvqa_join,
)
from densekit.evaluate.scorers.scorer import percent, score_of
from densekit.parity.compare import Quantities
from densekit.runs.benchmarks import Answer, Score

EXACT = 1e-12
PERCENT = 1e-10
"""Tolerance of figures in percent."""
TOTALS = ("question_type", "answer_type")
METADATA = ("language", "source", "category", "task", "context", "grade")


def _gqa(quantities: Quantities, given: Any, recorded: Any) -> None:
    answered = [
        Answered(Question(id=str(number), text="", image=None, gold=(gold,)), text)
        for number, (text, gold) in enumerate(given)
    ]
    scores = gqa.SCORER.score(answered, "faithful")
    quantities.exact("right", [bool(score.score) for score in scores], recorded["right"])
    accuracy = gqa.SCORER.figures(scores, "faithful")["accuracy"]
    quantities.close("accuracy", accuracy, recorded["accuracy"], PERCENT)


def _ten_answers(quantities: Quantities, pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
    answered = [
        Answered(Question(id=str(number), text="", image=None, gold=tuple(answers)), text)
        for number, (text, answers) in enumerate(pairs)
    ]
    scores = ten_answers.SCORER.score(answered, "faithful")
    return ten_answers.SCORER.figures(scores, "faithful")["accuracy"]


def _average(quantities: Quantities, given: Any, recorded: Any) -> None:
    pairs = [(row["prediction"], row["answers"]) for row in given]
    accuracy = quantities.refused(
        f"{len(pairs)} answers",
        recorded.get("error"),
        lambda: _ten_answers(quantities, pairs) / 100,
    )
    if accuracy is not None:
        quantities.close("accuracy", accuracy, recorded["accuracy"], EXACT)


def _textvqa(quantities: Quantities, given: Any, recorded: Any) -> None:
    annotations = {
        (row["image_id"], row["question"].lower()): row["answers"] for row in given["annotations"]
    }
    rows = given["results"]

    def run() -> tuple[int, float]:
        pairs = [
            (
                row["text"],
                textvqa_join.annotation_of(row["question_id"], row["prompt"], annotations),
            )
            for row in rows
        ]
        return len(pairs), _ten_answers(quantities, pairs)

    found = quantities.refused(f"{len(rows)} answers", recorded.get("error"), run)
    if found is not None:
        quantities.exact("samples", str(found[0]), str(recorded["samples"]))
        quantities.exact("accuracy", f"{found[1]:.2f}%", recorded["accuracy_printed"])


def _pope_counts(quantities: Quantities, given: Any, recorded: Any) -> None:
    _confusion(quantities, given["answers"], given["labels"], recorded)


def _pope_file(quantities: Quantities, given: Any, recorded: Any) -> None:
    category = {row["question_id"]: row["category"] for row in given["questions"]}
    for name, figures in recorded.items():
        texts = [row["text"] for row in given["answers"] if category[row["question_id"]] == name]
        labels = [row["label"] for row in given["questions"] if row["category"] == name]
        quantities.exact("samples", str(len(texts)), str(figures["samples"]))
        _confusion(quantities, texts, labels, figures)


def _confusion(
    quantities: Quantities, texts: Sequence[str], labels: Sequence[str], recorded: Any
) -> None:
    counts = pope.Confusion.of(
        [pope.said(text) or "" for text in texts], [pope.label(label) for label in labels]
    )
    found = {"TP": counts.tp, "FP": counts.fp, "TN": counts.tn, "FN": counts.fn}
    for key, value in found.items():
        if key in recorded:
            quantities.exact(key, str(value), str(recorded[key]))

    def figures() -> dict[str, float]:
        return {
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "accuracy": counts.accuracy,
            "yes_ratio": counts.yes_ratio,
        }

    values = quantities.refused(f"{len(texts)} answers", recorded.get("error"), figures)
    for figure, ours in (values or {}).items():
        quantities.close(figure, ours, recorded[figure], EXACT)


def _sqa(quantities: Quantities, given: Any, recorded: Any) -> None:
    def run() -> tuple[list[Score], dict[str, float]]:
        scores = sqa.SCORER.score([_problem(i, row) for i, row in enumerate(given)], "faithful")
        return scores, dict(sqa.SCORER.figures(scores, "faithful"))

    found = quantities.refused(f"{len(given)} problems", recorded.get("error"), run)
    if found is None:
        return
    scores, figures = found
    quantities.exact("total", str(len(scores)), str(recorded["total"]))
    correct = sum(bool(score.score) for score in scores)
    quantities.exact("correct", str(correct), str(recorded["correct"]))
    quantities.exact("accuracy", f"{figures['accuracy']:.2f}%", recorded["accuracy_printed"])
    image = f"{figures['image_accuracy']:.2f}%"
    quantities.exact("image_accuracy", image, recorded["image_accuracy_printed"])
    quantities.close("acc", figures["accuracy"], recorded["acc"], PERCENT)


def _problem(number: int, row: Any) -> Answered:
    """A problem; an unanswered one counts as wrong and as one without an image."""
    gold = chr(ord("A") + row["gold"])
    has_image = row["text"] is not None and "<image>" in row["prompt"]
    question = Question(
        id=str(number),
        text="",
        image=str(number) if has_image else None,
        gold=(gold,),
        category=sqa.IMAGE if has_image else sqa.TEXT,
        options=("",) * row["choices"],
    )
    return Answered(question, row["text"] or "")


def _mme(quantities: Quantities, given: Any, recorded: Any) -> None:
    answered = [
        Answered(
            Question(
                id=str(number),
                text="",
                image=row["image"],
                gold=(row["gold"],),
                category=row["category"],
            ),
            row["text"],
        )
        for number, row in enumerate(given)
    ]
    figures = mme.SCORER.figures(mme.SCORER.score(answered, "faithful"), "faithful")
    for key in ("perception", "cognition"):
        quantities.close(key, figures[key], recorded[key], PERCENT)
    names = {key.partition("/")[2] for key in figures if "/" in key}
    quantities.exact("categories", sorted(names), sorted(recorded["categories"]))
    for name, values in recorded["categories"].items():
        for key, value in values.items():
            quantities.close(key, figures[f"{key}/{name}"], value, PERCENT)


def _circular(quantities: Quantities, given: Any, recorded: Any) -> None:
    scores = [
        Score(
            question_id=str(row["index"]),
            cluster="",
            category="",
            gold=row["answer"],
            parsed=row["predicted"] or "",
            score=float(row["predicted"] == row["answer"]),
        )
        for row in given
    ]
    figures = mmbench.SCORER.figures(scores, "faithful")
    questions = len({mmbench.base_index(score.question_id) for score in scores})
    quantities.exact("questions", str(questions), str(recorded["questions"]))
    quantities.exact("passes", str(len(scores)), str(recorded["passes"]))
    for key in ("circular", "first_pass"):
        value = figures[f"{key}_accuracy"]
        quantities.close(f"{key}_accuracy", value, recorded[f"{key}_accuracy"], PERCENT)
        right = round(value * questions / 100)
        quantities.exact(f"{key}_right", str(right), str(recorded[f"{key}_right"]))


def _sheet(quantities: Quantities, given: Any, recorded: Any) -> None:
    rows, answers = given["rows"], given["predictions"]
    quantities.exact("columns", mmbench.sheet_columns(rows[0]), recorded["columns"])
    found = mmbench.sheet_answers(
        [row["index"] for row in rows], [(row["question_id"], row["text"]) for row in answers]
    )
    quantities.exact("predictions", [list(row) for row in found], recorded["predictions"])


def _seed(quantities: Quantities, given: Any, recorded: Any) -> None:
    texts = {str(row["question_id"]): row["text"] for row in given["results"]}
    questions, scores = [], []
    for row in given["questions"]:
        question = Question(
            id=row["question_id"],
            text="",
            image=None,
            gold=(row["answer"],),
            category=f"{row['data_type']}/{row['question_type_id']}",
        )
        if row["question_id"] in texts:
            scores.append(seed.score(question, texts[row["question_id"]], "faithful"))
        else:
            gold = row["answer"]
            scores.append(score_of(question, None, gold=gold, score=0.0, note=seed.MISSING))
        questions.append(question)
    found: dict[str, str] = {}

    def run() -> bool:
        for name, value in seed.printed(scores, "faithful", ("image", "video")):
            found["Total accuracy" if name == "accuracy" else name] = f"{value:.2f}%"
        join(questions, [Answer(question_id=name, text=text) for name, text in texts.items()])
        return True

    quantities.refused(f"{len(scores)} questions", recorded.get("error"), run)
    expected = {name: value for name, value in recorded.items() if name != "error"}
    quantities.exact("printed", found, expected)


def _mmmu(quantities: Quantities, given: Any, recorded: Any) -> None:
    judged: dict[str, str] = {}
    rights = []
    for row in given:
        gold = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        if row["question_type"] == "open":
            right = mmmu_open.right(gold, tuple(row["parsed_pred"]))
        else:
            right = row["parsed_pred"] in gold
        judged[row["id"]] = "Correct" if right else "Wrong"
        rights.append(right)
    quantities.exact("judged", judged, recorded["judged"])
    quantities.close("accuracy", percent(rights) / 100, recorded["accuracy"], EXACT)
    if "grouped" in recorded:
        _mmmu_grouped(quantities, given, recorded["grouped"])


def _mmmu_grouped(quantities: Quantities, given: Any, recorded: Any) -> None:
    subjects: defaultdict[str, list[float]] = defaultdict(list)
    for row in given:
        text = recorded["answers"][row["id"]]
        gold = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        is_open = row["question_type"] == "open"
        right = mmmu_open.right(gold, mmmu_open.parse(text)) if is_open else text in gold
        subjects[mmmu.subject_of(row["id"])].append(float(right))
    printed = {name: _row(values) for name, values in subjects.items()}
    for name, (count, share) in mmmu.domains(subjects).items():
        printed[f"Overall-{name}"] = {"num": count, "acc": round(share, 3)}
    every = [value for values in subjects.values() for value in values]
    quantities.exact("printed", {**printed, "Overall": _row(every)}, recorded["printed"])


def _row(values: Sequence[float]) -> dict[str, float]:
    return {"num": len(values), "acc": round(sum(values) / len(values), 3)}


def _mathvista(quantities: Quantities, given: Any, recorded: Any) -> None:
    groups = quantities.refused(
        f"{len(given)} answers", recorded.get("error"), lambda: _groups(given.values())
    )
    if groups is None:
        return
    found: dict[str, Any] = {
        key: {name: _share(rights, "{:.2f}") for name, rights in names.items()}
        for key, names in groups.items()
    }
    found["average"] = _share(groups["average"][""], "{}")
    for key, expected in recorded.items():
        quantities.exact(key, found[key], expected)


def _groups(rows: Iterable[Any]) -> dict[str, dict[str, list[bool]]]:
    """Right or not, by what the official script groups by."""
    groups: defaultdict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        is_choice = row["question_type"] == "multi_choice"
        right = row["answer"] == mathvista.prediction(
            row["extraction"],
            choices=(row["choices"] or ()) if is_choice else None,
            answer_type=row["answer_type"],
            precision=row["precision"],
        )
        groups["average"][""].append(right)
        for key in TOTALS:
            groups[key][row[key]].append(right)
        for key in METADATA:
            groups[key][row["metadata"][key]].append(right)
        for skill in row["metadata"]["skills"]:
            groups["skills"][skill].append(right)
    return {key: dict(names) for key, names in groups.items()}


def _share(rights: Sequence[bool], form: str) -> dict[str, object]:
    value = round(percent(rights), 2)
    return {"accuracy": form.format(value), "correct": sum(rights), "total": len(rights)}


CHECKS: dict[str, Callable[[Quantities, Any, Any], None]] = {
    "gqa_accuracy": _gqa,
    "mathvista_totals": _mathvista,
    "mmbench_circular": _circular,
    "mmbench_upload": _sheet,
    "mme_score": _mme,
    "mmmu_totals": _mmmu,
    "pope_counts": _pope_counts,
    "pope_file": _pope_file,
    "seed_totals": _seed,
    "sqa_totals": _sqa,
    "textvqa_average": _average,
    "textvqa_file": _textvqa,
}
