"""Comparing two runs: the first step at which they part, by what, and what can be the cause."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densekit.audit.diff.causes import Bearing, Cause, find_causes
from densekit.audit.diff.divergence import WORDS, Parting, find_partings, first_bit_difference
from densekit.audit.run_reader import Evidence, read_evidence, section
from densekit.errors import DataError, UsageError
from densekit.runs.manifest import MANIFEST_FILE


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What comparing run `a` with run `b` found.

    `steps` both runs have were compared. `partings` is empty when they are equal within
    `tolerance`, else it holds the first parting of every kind that parts; its first one is where
    the runs part. `first_bit_difference` is the first step at which any recorded number differs at
    all. `causes` are ranked, the most telling first.
    """

    a: str
    b: str
    runs: tuple[str, str]
    tolerance: float
    steps: int
    first_bit_difference: int | None
    partings: tuple[Parting, ...]
    causes: tuple[Cause, ...]

    @property
    def equal(self) -> bool:
        """Whether there is nothing to report: equal within the tolerance over the same number of
        steps.
        """
        return not self.partings

    def report(self) -> list[str]:
        """The finding in words, one line each: where they part, why that can be, what else differs."""
        lines = [f"a: {self.a} (run {self.runs[0][:10]})", f"b: {self.b} (run {self.runs[1][:10]})"]
        if self.equal:
            lines += [self._agreement(self.steps), "nothing to report"]
        else:
            lines += self._parting_lines()
        nothing = [
            f"differs, but explains nothing seen: {_said(cause)}"
            for cause in self._bearing("nothing")
        ]
        return [*lines, *nothing]

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs; a and b are the two values everywhere."""
        return {"equal": self.equal, **asdict(self)}

    def _parting_lines(self) -> Iterator[str]:
        first = self.partings[0]
        yield f"the runs part at {first.words()}"
        if first.step > 1:
            yield f"before that: {self._agreement(first.step - 1)}"
        if len(self.partings) > 1:
            later = ", ".join(
                f"{WORDS[parting.kind]} at step {parting.step}" for parting in self.partings[1:]
            )
            yield f"also: {later}"
        explaining = self._bearing("explains")
        if explaining:
            yield "what explains it, most telling first:"
        else:
            yield "no cause is visible in what the two runs recorded"
        yield from (f"{number}. {_said(cause)}" for number, cause in enumerate(explaining, start=1))
        yield from (
            f"differs, and may add to what parts later: {_said(cause)}"
            for cause in self._bearing("adds")
        )

    def _agreement(self, steps: int) -> str:
        bit = self.first_bit_difference
        if bit is None or bit > steps:
            return f"equal to the last bit over {_steps(steps)}"
        return f"equal within {self.tolerance:g} over {_steps(steps)}; first bit difference at step {bit}"

    def _bearing(self, bearing: Bearing) -> list[Cause]:
        return [cause for cause in self.causes if cause.bearing == bearing]


def check_tolerance(tolerance: float) -> None:
    """UsageError for a tolerance that is no number from 0 on."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"tolerance {tolerance}: give a number from 0 on, e.g. 1e-5")


def compare_runs(a: Path, b: Path, *, tolerance: float = 1e-5) -> Comparison:
    """Compare two run directories step by step, whatever their recipes.

    Compared in this order within a step, and the first that differs is where they part: sample ids,
    image digests, token counts, learning rate, loss, gradient norm, update or overflow. Losses part
    when |a - b| > tolerance * max(1, |a|, |b|): an absolute difference, relative for losses above
    1. Gradient norms part when |a - b| > tolerance * max(|a|, |b|), learning rates likewise beyond
    1e-9. A number and a null (no gradient, overflow) part always. Runs that agree so far part where
    the shorter one ends; and, equal to the last bit in every step, by the hashes of their trained
    weights.

    Raises UsageError for a tolerance that is no number from 0 on, DataError when a folder is no run
    directory, a file in it is damaged, or neither run has a step yet.
    """
    check_tolerance(tolerance)
    one, two = read_evidence(a), read_evidence(b)
    if not one.metrics and not two.metrics:
        raise DataError(
            f"neither {a} nor {b} has a step in its metrics.jsonl: train them, then compare"
        )
    partings = find_partings(one, two, tolerance)
    bit = first_bit_difference(one, two)
    if not partings and bit is None:
        partings = _output_partings(one, two)
    return Comparison(
        a=str(a),
        b=str(b),
        runs=(one.run, two.run),
        tolerance=tolerance,
        steps=min(len(one.metrics), len(two.metrics)),
        first_bit_difference=bit,
        partings=tuple(partings),
        causes=tuple(find_causes(one, two, partings)),
    )


def _output_partings(a: Evidence, b: Evidence) -> list[Parting]:
    """Trained weights of two runs with equal steps: a difference in the very last update shows only
    there.
    """
    one, two = (section(run.manifest, "outputs", run.path / MANIFEST_FILE) for run in (a, b))
    for name in sorted(one.keys() & two.keys()):
        if name.endswith(".safetensors") and one[name] != two[name]:
            return [
                Parting(
                    kind="outputs",
                    step=len(a.metrics),
                    a=one[name],
                    b=two[name],
                    detail=f"{name}, after it",
                )
            ]
    return []


def _said(cause: Cause) -> str:
    return f"{cause.words} ({cause.evidence})"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"
