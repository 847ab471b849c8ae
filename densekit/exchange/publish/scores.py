"""Scores and verdicts of a card: as tables for readers, and as the `model-index` of the hub."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from densekit.exchange.publish.subject import Subject

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-text-to-text"
CONTROL = "held_out_shuffled"
"""What a model answers about other images is no score of it."""


def eval_results(subject: Subject) -> "list[EvalResult]":
    """What goes into `model-index`: scores of all questions of a benchmark."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type=result.benchmark,
            dataset_name=result.title,
            dataset_split=result.split,
            metric_type="score",
            metric_name=f"{result.semantics} scorer",
            metric_value=result.value,
        )
        for result in subject.results
        if result.value is not None and result.complete and result.benchmark != CONTROL
    ]


def score_lines(subject: Subject) -> Iterator[str]:
    """The section in words."""
    yield "## Scores\n"
    if not subject.results:
        yield "None were recorded: `densekit evaluate` makes them."
    if subject.results:
        yield "\n| benchmark | split | questions | score | |"
        yield "|---|---|---|---|---|"
    for result in subject.results:
        value = "none" if result.value is None else f"{result.value:g}"
        remarks = [result.problem, result.other_protocol]
        if not result.complete:
            remarks.append(f"incomplete: {result.questions} of {result.available} questions")
        if result.dtype != result.official_dtype:
            remarks.append(f"in {result.dtype}; the official type is {result.official_dtype}")
        yield (
            f"| {result.title} | {result.split} | {result.questions} | {value} | "
            f"{'; '.join(remark for remark in remarks if remark)} |"
        )
    yield from _verdict(subject)


def _verdict(subject: Subject) -> Iterator[str]:
    verdict = subject.verdict
    if verdict is None:
        yield "\nNo verdict on the paper's numbers was made (`densekit verdict`)."
        return
    calibration = "; ".join(verdict.calibrated) or "none"
    yield (
        f"\nVerdict on the paper's numbers, over {len(verdict.runs)} "
        f"run{'s' * (len(verdict.runs) != 1)}; calibration: {calibration}.\n"
    )
    if subject.outdated:
        yield (
            f"It is of earlier answers than the scores above of {', '.join(subject.outdated)}: "
            "`densekit verdict` judges again.\n"
        )
    yield "| benchmark | reported | here | verdict | |"
    yield "|---|---|---|---|---|"
    for line in verdict.lines:
        yield (
            f"| {line.title} | {_number(line.reported)} | {_number(line.ours)} | "
            f"{line.verdict or 'none'} | {line.note} |"
        )
    if verdict.gains is not None:
        yield f"\nGain over `{verdict.gains.baseline}`:\n"
        yield "| benchmark | difference | 95 % interval | reported | claim |"
        yield "|---|---|---|---|---|"
    for gain in verdict.gains.lines if verdict.gains else ():
        yield (
            f"| {gain.title} | {gain.difference:+.2f} | {gain.low:+.2f} to {gain.high:+.2f} | "
            f"{_number(gain.reported)} | {gain.claim} |"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
