"""Where two runs diverge: for each thing a step records, the first step at which the two differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import shown
from densekit.runs.records import FEED_FILE, StepFeed, StepRecord

LEARNING_RATE_TOLERANCE = 1e-9

Kind = Literal["ids", "images", "tokens", "lr", "loss", "grad_norm", "updated", "length", "outputs"]
# In the order in which one brings about the next within a step: the first divergence is the one to
# explain.
NAMES: dict[Kind, str] = {
    "ids": "sample ids",
    "images": "image",
    "tokens": "token counts",
    "lr": "learning rate",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "updated": "overflow",
    "length": "number of steps",
    "outputs": "trained weights",
}
FLOATS: tuple[Literal["loss", "lr", "grad_norm"], ...] = ("loss", "lr", "grad_norm")
COUNTS: dict[Kind, tuple[str, ...]] = {
    "tokens": ("tokens", "supervised_tokens", "masked_samples"),
    "updated": ("updated", "overflows"),
}


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first step (from 1) at which two runs differ in `kind`, with both values."""

    kind: Kind
    step: int
    a: str | float | None
    b: str | float | None
    detail: str = ""
    """More in words, e.g. which sample."""
    index: str | None = None
    """For ids and images, the annotation entry when the same entry was fed with other content;
    None when another sample was fed.
    """

    def describe(self) -> str:
        """One line for people."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"step {self.step}: {NAMES[self.kind]}: {shown(self.a)} and {shown(self.b)}{detail}"


def find_divergences(a: RecordedRun, b: RecordedRun, tolerance: float) -> list[Divergence]:
    """The first divergence of every kind, in the order of step and of NAMES.

    Losses diverge when |a - b| > tolerance * max(1, |a|, |b|), gradient norms when |a - b| >
    tolerance * max(|a|, |b|), learning rates likewise beyond 1e-9, everything else when unequal. A
    null and a number always diverge. `length` diverges at the first step that only one has.
    """
    found: dict[Kind, Divergence] = {}
    for one, two in zip(a.steps, b.steps, strict=False):
        for divergence in _step_divergences(one, two, a, b, tolerance):
            found.setdefault(divergence.kind, divergence)
    counts = len(a.steps), len(b.steps)
    if counts[0] != counts[1]:
        states = f"a is {state_of(a)}, b is {state_of(b)}"
        found["length"] = Divergence(
            kind="length", step=min(counts) + 1, a=counts[0], b=counts[1], detail=states
        )
    order = list(NAMES)
    return sorted(found.values(), key=lambda found: (found.step, order.index(found.kind)))


def first_bit_difference(a: RecordedRun, b: RecordedRun) -> int | None:
    """The first step at which loss, learning rate or gradient norm differ in any bit; None when
    none does.
    """
    for one, two in zip(a.steps, b.steps, strict=False):
        if any(repr(getattr(one, name)) != repr(getattr(two, name)) for name in FLOATS):
            return one.step
    return None


def state_of(run: RecordedRun) -> str:
    """The state of a run for people."""
    return run.status.state if run.status is not None else "damaged"


def _step_divergences(
    one: StepRecord, two: StepRecord, a: RecordedRun, b: RecordedRun, tolerance: float
) -> Iterator[Divergence]:
    if one.ids != two.ids:
        yield _sample_divergence(one.step, a, b)
    if one.images != two.images:
        yield _image_divergence(one.step, a, b)
    for kind, names in COUNTS.items():
        unequal = [name for name in names if getattr(one, name) != getattr(two, name)]
        if unequal:
            values = [
                ", ".join(f"{name} {getattr(record, name)}" for name in unequal)
                for record in (one, two)
            ]
            yield Divergence(kind=kind, step=one.step, a=values[0], b=values[1])
    limits = {
        "lr": (LEARNING_RATE_TOLERANCE, 0.0),
        "loss": (tolerance, 1.0),
        "grad_norm": (tolerance, 0.0),
    }
    for name in FLOATS:
        first, second = getattr(one, name), getattr(two, name)
        if not _close(first, second, *limits[name]):
            yield Divergence(kind=name, step=one.step, a=first, b=second)


def _close(a: float | None, b: float | None, tolerance: float, floor: float) -> bool:
    if repr(a) == repr(b):  # also two nulls, two NaN, two infinities
        return True
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return False
    return abs(a - b) <= tolerance * max(floor, abs(a), abs(b))


def _sample_divergence(step: int, a: RecordedRun, b: RecordedRun) -> Divergence:
    fed = _fed(step, a, b)
    place = _first_difference(*(line.samples for line in fed)) if fed else None
    if fed is None or place is None:
        return _unnamed("ids", step, a, b)
    one, two = (_at(line.samples, place) for line in fed)
    same = _same_entry(one, two)
    what = "another sample" if same is None else "same annotation entry, other content"
    detail = f"{_place(place, *(line.samples for line in fed))}; {what}"
    return Divergence(kind="ids", step=step, a=one, b=two, detail=detail, index=same)


def _image_divergence(step: int, a: RecordedRun, b: RecordedRun) -> Divergence:
    fed = _fed(step, a, b)
    place = _first_difference(*(line.images for line in fed)) if fed else None
    if fed is None or place is None:
        return _unnamed("images", step, a, b)
    one, two = (_at(line.images, place) for line in fed)
    samples = [_at(line.samples, place) for line in fed]
    same = _same_entry(samples[0], samples[1])
    if same is None:
        whose = f"of samples {shown(samples[0])} and {shown(samples[1])}"
    else:
        whose = f"of annotation entry {same}"
    detail = f"{whose}; {_place(place, *(line.images for line in fed))}"
    return Divergence(kind="images", step=step, a=one, b=two, detail=detail, index=same)


def _unnamed(
    kind: Literal["ids", "images"], step: int, a: RecordedRun, b: RecordedRun
) -> Divergence:
    """A divergence by the digests alone: a feed lacks the step, or the feeds do not show what the
    metrics say.
    """
    lacking = [str(run.path / FEED_FILE) for run in (a, b) if step > len(run.feed)]
    if lacking:
        verb = "lacks" if len(lacking) == 1 else "lack"
        detail = f"{' and '.join(lacking)} {verb} this step, so the sample cannot be named"
    else:
        detail = (
            f"but both {FEED_FILE} list the same: a file was changed after its run; `densekit "
            "verify` names it"
        )
    one, two = (getattr(run.steps[step - 1], kind) for run in (a, b))
    return Divergence(kind=kind, step=step, a=one, b=two, detail=detail)


def _fed(step: int, a: RecordedRun, b: RecordedRun) -> tuple[StepFeed, StepFeed] | None:
    """What both fed in a step; None where a feed lacks it."""
    if step > min(len(a.feed), len(b.feed)):
        return None
    return a.feed[step - 1], b.feed[step - 1]


def _differing(one: Sequence[str | None], two: Sequence[str | None]) -> list[int]:
    longest = max(len(one), len(two))
    return [place for place in range(longest) if _at(one, place) != _at(two, place)]


def _first_difference(one: Sequence[str | None], two: Sequence[str | None]) -> int | None:
    return next(iter(_differing(one, two)), None)


def _place(place: int, one: Sequence[str | None], two: Sequence[str | None]) -> str:
    longest, count = max(len(one), len(two)), len(_differing(one, two))
    return f"place {place + 1} of {longest} in the step; {count} of them differ"


def _at(values: Sequence[str | None], place: int) -> str | None:
    return values[place] if place < len(values) else None


def _same_entry(a: str | None, b: str | None) -> str | None:
    """The annotation entry that two sample ids share; None when they have different ones."""
    if a is None or b is None or entry_index(a) != entry_index(b):
        return None
    return entry_index(a)


def entry_index(sample_id: str) -> str:
    """The annotation entry of a sample id: `12` of `12:0123456789abcdef`."""
    return sample_id.partition(":")[0]
