"""Why two runs diverged: what differs between them, ranked by what it can explain.

What can explain the first divergence comes first, in the order of EXPLAINED_BY; then what can only
have contributed to later ones; last what differs but is an unlikely cause. Nothing is claimed
beyond that: the list names what can be the cause, not what is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from densekit.audit.diff.differences import (
    Difference,
    data_differences,
    recipe_differences,
    weight_differences,
)
from densekit.audit.diff.divergence import Divergence, Kind, state_of
from densekit.audit.diff.environment import (
    attempt_differences,
    environment_differences,
    execution_differences,
)
from densekit.audit.model_files import model_differences
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import count_of
from densekit.runs.layout import STATUS_FILE

Relevance = Literal["explains", "contributes", "unlikely"]
RELEVANCE: tuple[Relevance, ...] = get_args(Relevance)

COMPUTED = (
    "model",
    "text",
    "pixels",
    "schedule",
    "optimizer",
    "weights",
    "start",
    "seed",
    "init",
    "tokenizer",
    "models",
    "device",
    "package",
    "assets",
    "code",
    "variables",
    "machine",
    "other packages",
    "rounding",
)
# What can bring about a divergence of each kind, most likely first.
EXPLAINED_BY: dict[Kind, tuple[str, ...]] = {
    "ids": ("seed", "order", "assets", "sample", "annotations", "length", "code", "package"),
    "images": ("image", "image folder", "assets", "code"),
    "tokens": (
        "text",
        "tokenizer",
        "model",
        "models",
        "package",
        "pixels",
        "code",
        "other packages",
    ),
    "lr": ("schedule", "length", "order", "annotations", "assets", "code"),
    "loss": COMPUTED,
    "grad_norm": COMPUTED,
    "updated": COMPUTED,
    "outputs": ("optimizer", *COMPUTED),
    "length": ("state", "length", "order", "annotations", "assets", "code"),
}
# The first step runs on initial weights: what the optimizer does with its gradient shows from the
# second on.
FROM_THE_SECOND_STEP = ("schedule", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One difference between two runs, and what it has to do with their divergences."""

    relevance: Relevance
    """It can explain the first divergence, contribute to later ones, or is an unlikely cause."""
    topic: str
    message: str
    evidence: str
    """Where the difference was read."""


def find_explanations(
    a: RecordedRun, b: RecordedRun, divergences: Sequence[Divergence]
) -> list[Explanation]:
    """Everything that differs between two runs, the most likely cause first."""
    first = divergences[0] if divergences else None
    explaining = _explaining(first) if first else ()
    later = {topic for found in divergences[1:] for topic in EXPLAINED_BY[found.kind]}
    later -= {"rounding"}
    ranked = []
    for difference in _differences(a, b, diverged=first is not None):
        rank = 0
        relevance: Relevance = "contributes" if difference.topic in later else "unlikely"
        if difference.topic in explaining:
            relevance, rank = "explains", explaining.index(difference.topic)
        explanation = Explanation(relevance=relevance, **vars(difference))
        ranked.append((RELEVANCE.index(relevance), rank, explanation))
    return [explanation for _, _, explanation in sorted(ranked, key=lambda item: item[:2])]


def _explaining(divergence: Divergence) -> tuple[str, ...]:
    topics = EXPLAINED_BY[divergence.kind]
    if divergence.kind == "ids" and divergence.index is not None:
        # The order is the same, the content of one entry is not.
        topics = ("sample", "annotations", *topics)
    if divergence.step == 1 and divergence.kind in ("loss", "grad_norm", "updated"):
        topics = tuple(topic for topic in topics if topic not in FROM_THE_SECOND_STEP)
    return topics


def _differences(a: RecordedRun, b: RecordedRun, *, diverged: bool) -> Iterator[Difference]:
    yield from _state_differences(a, b)
    yield from recipe_differences(a, b)
    yield from data_differences(a, b)
    yield from model_differences(a, b)
    yield from weight_differences(a, b)
    yield from environment_differences(a.environment, b.environment)
    yield from execution_differences(a, b)
    if diverged:
        # Equal runs need no explanation, and an attempt may have failed before its first step.
        yield from attempt_differences("a", a)
        yield from attempt_differences("b", b)


def _state_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    for name, run in (("a", a), ("b", b)):
        if run.status is not None and run.status.state != "complete":
            reason = f": {run.status.message}" if run.status.message else ""
            message = f"{name} is {state_of(run)} after {count_of(len(run.steps), 'step')}{reason}"
            evidence = str(run.path / STATUS_FILE)
            yield Difference(topic="state", message=message, evidence=evidence)
