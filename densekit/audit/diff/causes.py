"""Why two runs parted: what differs between them, ranked by what it can explain.

A cause that explains the kind of the first parting comes first, in the order of EXPLAINED_BY; then
what can only have added to what parted later; last what differs and explains nothing seen. Nothing
is claimed beyond that: the list names what can be the cause, not what is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from densekit.audit.diff.differences import (
    Difference,
    data_differences,
    recipe_differences,
    weight_differences,
)
from densekit.audit.diff.divergence import Parting
from densekit.audit.diff.environment import (
    attempt_differences,
    environment_differences,
    execution_differences,
)
from densekit.audit.model_files import model_differences
from densekit.audit.run_reader import Evidence

Bearing = Literal["explains", "adds", "nothing"]
BEARINGS: tuple[Bearing, ...] = ("explains", "adds", "nothing")

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
    "machine",
    "other packages",
    "rounding",
)
# What can bring about a parting of each kind, most telling first.
EXPLAINED_BY: dict[str, tuple[str, ...]] = {
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
# The first step runs on initial weights: what the optimiser does with its gradient shows from the
# second on.
FROM_THE_SECOND_STEP = ("schedule", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One difference and what it has to do with the partings: it `explains` the first, `adds` to
    later ones, or has to do with `nothing` seen.
    """

    bearing: Bearing
    topic: str
    words: str
    evidence: str


def find_causes(a: Evidence, b: Evidence, partings: Sequence[Parting]) -> list[Cause]:
    """Everything that differs between two runs, the most telling first."""
    first = partings[0] if partings else None
    explaining = _explaining(first) if first else ()
    later = {topic for parting in partings[1:] for topic in EXPLAINED_BY[parting.kind]} - {
        "rounding"
    }
    ranked = []
    for difference in _differences(a, b, parted=first is not None):
        if difference.topic in explaining:
            bearing, rank = BEARINGS[0], explaining.index(difference.topic)
        else:
            bearing, rank = BEARINGS[1] if difference.topic in later else BEARINGS[2], 0
        cause = Cause(
            bearing=bearing,
            topic=difference.topic,
            words=difference.words,
            evidence=difference.evidence,
        )
        ranked.append((BEARINGS.index(bearing), rank, cause))
    return [cause for _, _, cause in sorted(ranked, key=lambda item: item[:2])]


def _explaining(parting: Parting) -> tuple[str, ...]:
    topics = EXPLAINED_BY[parting.kind]
    if (
        parting.kind == "ids" and parting.index is not None
    ):  # the order is the same, one entry is not
        topics = ("sample", "annotations", *topics)
    if parting.step == 1 and parting.kind in ("loss", "grad_norm", "updated"):
        topics = tuple(topic for topic in topics if topic not in FROM_THE_SECOND_STEP)
    return topics


def _differences(a: Evidence, b: Evidence, *, parted: bool) -> Iterator[Difference]:
    yield from _state_differences(a, b)
    yield from recipe_differences(a, b)
    yield from data_differences(a, b)
    yield from model_differences(a, b)
    yield from weight_differences(a, b)
    yield from environment_differences(a, b)
    yield from execution_differences(a, b)
    if (
        parted
    ):  # equal runs need no explanation, and an attempt may have failed before its first step
        yield from attempt_differences("a", a)
        yield from attempt_differences("b", b)


def _state_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    for name, run in (("a", a), ("b", b)):
        if run.state != "complete":
            message = f": {run.message}" if run.message else ""
            words = f"{name} is {run.state} after {len(run.metrics)} steps{message}"
            yield Difference(topic="state", words=words, evidence=f"{run.path / 'status.json'}")
