"""What lmms-eval logged: an answer and a score for each row, and the score of each task."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.evaluate.cross_check.tasks import Task
from densekit.files.json_files import read_jsonl, read_object

REMEDY = "run `densekit cross-check` again"
METRIC = "exact_match"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One task's answers by question id, and its scores."""

    texts: Mapping[str, str]
    scores: Mapping[str, float]
    """Of each answer, by lmms-eval's exact match: 0 or 1."""
    value: float
    """The task's score, 0 to 1."""


def read_samples(output: Path, task: Task) -> Imported:
    """The newest log of a task below `output`.

    Raises DataError where there is none, and for one that lacks rows or is not what lmms-eval 0.7
    writes.
    """
    samples = _newest(output, f"*_samples_{task.name}.jsonl")
    results = _newest(output, "*_results.json")
    texts: dict[str, str] = {}
    scores: dict[str, float] = {}
    for number, row in enumerate(read_jsonl(samples, remedy=REMEDY), 1):
        place = row.get("doc_id")
        if not (isinstance(place, int) and 0 <= place < len(task.questions)):
            raise DataError(f"{samples}: line {number}: `doc_id` is {place!r}; {REMEDY}")
        texts[task.questions[place]] = _text(samples, number, row)
        scores[task.questions[place]] = _score(samples, number, row)
    if missing := [name for name in task.questions if name not in texts]:
        raise DataError(
            f"{samples} has {len(texts)} of {len(task.questions)} rows; question {missing[0]} is "
            f"missing; {REMEDY}"
        )
    found = read_object(results, "results", remedy=REMEDY)["results"]
    values = found.get(task.name, {}) if isinstance(found, dict) else {}
    value = values.get(f"{METRIC},none")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{results}: no `{METRIC},none` of {task.name}; {REMEDY}")
    return Imported(texts=texts, scores=scores, value=float(value))


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern), key=lambda path: (path.stat().st_mtime, path.name))
    if not found:
        raise DataError(f"{folder} has no {pattern}: lmms-eval wrote no log; {REMEDY}")
    return found[-1]


def _text(path: Path, number: int, row: Mapping[str, Any]) -> str:
    """The first response; a list of lists where a filter kept several."""
    value = row.get("filtered_resps")
    while isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(f"{path}: line {number}: no text in `filtered_resps`; {REMEDY}")
    return value


def _score(path: Path, number: int, row: Mapping[str, Any]) -> float:
    value = row.get(METRIC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{path}: line {number}: `{METRIC}` is {value!r}, not a number; {REMEDY}")
    return float(value)
