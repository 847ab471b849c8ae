"""Where two runs part: for each thing a step records, the first step at which the two differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from densekit.audit.run_reader import NUMBERS, TEXT_COUNTS, UPDATES, Evidence
from densekit.runs.records import FEED_FILE

LEARNING_RATE_TOLERANCE = 1e-9

# In the order in which one brings about the next within a step: the first that parts is the one to
# explain.
WORDS = {
    "ids": "the samples fed",
    "images": "an image fed",
    "tokens": "the tokens of the same samples",
    "lr": "the learning rate",
    "loss": "the loss",
    "grad_norm": "the gradient norm",
    "updated": "a step without an update (overflow)",
    "length": "the number of steps",
    "outputs": "the trained weights",
}


@dataclass(frozen=True, kw_only=True)
class Parting:
    """The first step (from 1) at which two runs differ in `kind`, a key of WORDS, with both values.

    `detail` says more in words, e.g. which sample. For ids and images, `index` is the annotation
    entry when the same entry was fed with other content, None when another sample was fed.
    """

    kind: str
    step: int
    a: Any
    b: Any
    detail: str = ""
    index: str | None = None

    def words(self) -> str:
        """One line for people."""
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"step {self.step} by {WORDS[self.kind]}: {shown(self.a)} and {shown(self.b)}{detail}"
        )


def shown(value: Any) -> str:
    """A value for people: a number in full, a long hash by its first 16 digits, nothing as `null`."""
    if value is None:
        return "null"
    text = repr(value) if isinstance(value, float) else str(value)
    return f"{text[:16]}..." if len(text) == 64 and " " not in text else text


def find_partings(a: Evidence, b: Evidence, tolerance: float) -> list[Parting]:
    """The first parting of every kind that parts, in the order of step and of WORDS.

    Loss: |a - b| > tolerance * max(1, |a|, |b|). Gradient norm: |a - b| > tolerance * max(|a|,
    |b|). Learning rate: the same with 1e-9. Everything else: unequal. A null and a number part.
    `length` parts at the first step only one has.
    """
    found: dict[str, Parting] = {}
    for step, (one, two) in enumerate(zip(a.metrics, b.metrics, strict=False), start=1):
        for parting in _differences(step, one, two, a, b, tolerance):
            found.setdefault(parting.kind, parting)
    steps = len(a.metrics), len(b.metrics)
    if steps[0] != steps[1]:
        states = f"a is {a.state}, b is {b.state}"
        found["length"] = Parting(
            kind="length", step=min(steps) + 1, a=steps[0], b=steps[1], detail=states
        )
    order = list(WORDS)
    return sorted(found.values(), key=lambda parting: (parting.step, order.index(parting.kind)))


def first_bit_difference(a: Evidence, b: Evidence) -> int | None:
    """The first step at which loss, learning rate or gradient norm differ in any bit; None when
    none does.
    """
    for step, (one, two) in enumerate(zip(a.metrics, b.metrics, strict=False), start=1):
        if any(repr(one[name]) != repr(two[name]) for name in NUMBERS):
            return step
    return None


def _differences(
    step: int, one: dict[str, Any], two: dict[str, Any], a: Evidence, b: Evidence, tolerance: float
) -> Iterator[Parting]:
    if one["ids"] != two["ids"]:
        yield _sample_parting(step, a, b)
    if one["images"] != two["images"]:
        yield _image_parting(step, a, b)
    for kind, names in (("tokens", TEXT_COUNTS), ("updated", UPDATES)):
        unequal = [name for name in names if one[name] != two[name]]
        if unequal:
            values = [
                ", ".join(f"{name} {shown(record[name])}" for name in unequal)
                for record in (one, two)
            ]
            yield Parting(kind=kind, step=step, a=values[0], b=values[1])
    limits = {
        "lr": (LEARNING_RATE_TOLERANCE, 0.0),
        "loss": (tolerance, 1.0),
        "grad_norm": (tolerance, 0.0),
    }
    for kind, (limit, floor) in limits.items():
        if not _close(one[kind], two[kind], limit, floor):
            yield Parting(kind=kind, step=step, a=one[kind], b=two[kind])


def _close(a: float | None, b: float | None, tolerance: float, floor: float) -> bool:
    if repr(a) == repr(b):  # also two nulls, two NaN, two infinities
        return True
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return False
    return abs(a - b) <= tolerance * max(floor, abs(a), abs(b))


def _sample_parting(step: int, a: Evidence, b: Evidence) -> Parting:
    place = _first_difference(step, a, b, "samples")
    if place is None:
        return _unnamed("ids", step, a, b)
    mine, other = (_at(run.feed[step].samples, place) for run in (a, b))
    same = _same_entry(mine, other)
    what = "another sample" if same is None else "same entry index, changed content"
    detail = f"{_place(step, place, a, b, 'samples')}; {what}"
    return Parting(kind="ids", step=step, a=mine, b=other, detail=detail, index=same)


def _image_parting(step: int, a: Evidence, b: Evidence) -> Parting:
    place = _first_difference(step, a, b, "images")
    if place is None:
        return _unnamed("images", step, a, b)
    mine, other = (_at(run.feed[step].images, place) for run in (a, b))
    samples = [_at(run.feed[step].samples, place) for run in (a, b)]
    same = _same_entry(samples[0], samples[1])
    whose = (
        f"of samples {shown(samples[0])} and {shown(samples[1])}"
        if same is None
        else f"of sample {same}"
    )
    detail = f"{whose}; {_place(step, place, a, b, 'images')}"
    return Parting(kind="images", step=step, a=mine, b=other, detail=detail, index=same)


def _unnamed(kind: str, step: int, a: Evidence, b: Evidence) -> Parting:
    """A parting by the digests alone: a feed lacks the step, or the feeds do not show what the
    metrics say.
    """
    lacking = [str(run.path / FEED_FILE) for run in (a, b) if step not in run.feed]
    detail = (
        f"{' and '.join(lacking)} lacks this step, so the sample cannot be named"
        if lacking
        else f"but both {FEED_FILE} list the same: a file was changed after its run; `densekit verify` says which"
    )
    one, two = (run.metrics[step - 1][kind] for run in (a, b))
    return Parting(kind=kind, step=step, a=one, b=two, detail=detail)


def _first_difference(step: int, a: Evidence, b: Evidence, name: str) -> int | None:
    """The first place in the step at which the feeds list another sample or image; None when they
    show none.
    """
    if step not in a.feed or step not in b.feed:
        return None
    one, two = (getattr(run.feed[step], name) for run in (a, b))
    return next(
        (place for place in range(max(len(one), len(two))) if _at(one, place) != _at(two, place)),
        None,
    )


def _place(step: int, place: int, a: Evidence, b: Evidence, name: str) -> str:
    one, two = (getattr(run.feed[step], name) for run in (a, b))
    longest = max(len(one), len(two))
    count = sum(_at(one, number) != _at(two, number) for number in range(longest))
    return f"place {place + 1} of {longest} in the step; {count} of them differ"


def _at(values: Sequence[str | None], place: int) -> str | None:
    return values[place] if place < len(values) else None


def _same_entry(a: str | None, b: str | None) -> str | None:
    """The annotation entry that two sample ids share; None when they have different ones."""
    return (
        entry_index(a)
        if a is not None and b is not None and entry_index(a) == entry_index(b)
        else None
    )


def entry_index(sample_id: str) -> str:
    """The annotation entry of a sample id: `12` of `12:0123456789abcdef`."""
    return sample_id.partition(":")[0]
