"""Comparing two runs: the first step at which they diverge, in what, and what can explain it."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densekit.audit.diff.divergence import (
    NAMES,
    Divergence,
    find_divergences,
    first_bit_difference,
)
from densekit.audit.diff.explanations import Explanation, Relevance, find_explanations
from densekit.audit.run_reader import RecordedRun, read_run
from densekit.audit.wording import count_of
from densekit.errors import DataError, UsageError
from densekit.runs.records import METRICS_FILE

SCHEMA = 2
"""Of `densekit diff --json`. Schema 1 had no number, and other names: partings, causes, bearing,
words.
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What comparing run `a` with run `b` found."""

    a: str
    b: str
    runs: tuple[str, str]
    """The hashes of the two runs."""
    tolerance: float
    steps: int
    """Steps that both runs have, which were compared."""
    first_bit_difference: int | None
    """The first step at which any recorded number differs at all."""
    divergences: tuple[Divergence, ...]
    """The first of every kind that diverges, the first of all in front; empty when the runs are
    equal within `tolerance`.
    """
    explanations: tuple[Explanation, ...]
    """What differs between the runs, the most likely cause first."""

    @property
    def equal(self) -> bool:
        """Whether the runs are equal within the tolerance, over the same number of steps."""
        return not self.divergences

    def report(self) -> list[str]:
        """The finding, one line each: where the runs diverge, what can explain it, what else
        differs.
        """
        lines = [f"a: {self.a} (run {self.runs[0][:10]})", f"b: {self.b} (run {self.runs[1][:10]})"]
        if self.divergences:
            lines += self._divergence_lines()
        else:
            lines.append(self._agreement(self.steps))
            identical = self.first_bit_difference is None
            lines.append("runs are identical" if identical else "runs do not diverge")
        unlikely = self._of("unlikely")
        return [*lines, *(f"also differs (unlikely cause): {_cited(found)}" for found in unlikely)]

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {"schema": SCHEMA, "equal": self.equal, **asdict(self)}

    def _divergence_lines(self) -> Iterator[str]:
        first = self.divergences[0]
        yield f"runs diverge at {first.describe()}"
        if first.step > 1:
            yield f"before that: {self._agreement(first.step - 1)}"
        if len(self.divergences) > 1:
            later = ", ".join(
                f"{NAMES[found.kind]} at step {found.step}" for found in self.divergences[1:]
            )
            yield f"also diverging: {later}"
        explaining = self._of("explains")
        if explaining:
            yield "differences that can explain it, most likely first:"
        else:
            yield "no recorded difference explains it"
        yield from (
            f"{number}. {_cited(found)}" for number, found in enumerate(explaining, start=1)
        )
        yield from (
            f"also differs (may contribute to later divergences): {_cited(found)}"
            for found in self._of("contributes")
        )

    def _agreement(self, count: int) -> str:
        bit = self.first_bit_difference
        if bit is None or bit > count:
            return f"bitwise equal over {count_of(count, 'step')}"
        return (
            f"equal within {self.tolerance:g} over {count_of(count, 'step')}; first bit difference "
            f"at step {bit}"
        )

    def _of(self, relevance: Relevance) -> list[Explanation]:
        return [found for found in self.explanations if found.relevance == relevance]


def check_tolerance(tolerance: float) -> None:
    """UsageError for a tolerance that is negative or no number."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"--tolerance {tolerance}: give a number of at least 0, e.g. 1e-5")


def compare_runs(a: Path, b: Path, *, tolerance: float = 1e-5) -> Comparison:
    """Compare two run directories step by step, whatever their recipes.

    Compared in this order within a step: sample ids, image digests, token counts, learning rate,
    loss, gradient norm, overflow; the first that differs is where they diverge. Losses diverge when
    |a - b| > tolerance * max(1, |a|, |b|): an absolute difference, relative for losses above 1.
    Gradient norms diverge when |a - b| > tolerance * max(|a|, |b|), learning rates likewise beyond
    1e-9. A number and a null (no gradient, overflow) always diverge. Runs that agree so far diverge
    where the shorter one ends; and, bitwise equal in every step, by the hashes of their trained
    weights.

    Raises UsageError for a tolerance that is negative or no number, DataError when a folder is no
    run directory, a file in it is damaged, or neither run has a step yet.
    """
    check_tolerance(tolerance)
    one, two = read_run(a).intact(), read_run(b).intact()
    if not one.steps and not two.steps:
        raise DataError(
            f"neither {a} nor {b} has a step in its {METRICS_FILE}: train them, then compare"
        )
    divergences = find_divergences(one, two, tolerance)
    bit = first_bit_difference(one, two)
    if not divergences and bit is None:
        divergences = _output_divergences(one, two)
    return Comparison(
        a=str(a),
        b=str(b),
        runs=(_run_hash(one), _run_hash(two)),
        tolerance=tolerance,
        steps=min(len(one.steps), len(two.steps)),
        first_bit_difference=bit,
        divergences=tuple(divergences),
        explanations=tuple(find_explanations(one, two, divergences)),
    )


def _run_hash(run: RecordedRun) -> str:
    assert run.math is not None, "an intact run has a math.json"
    return run.math.sha256


def _output_divergences(a: RecordedRun, b: RecordedRun) -> list[Divergence]:
    """Trained weights of two runs with equal steps: a difference in the very last update shows only
    there.
    """
    one, two = (run.manifest.outputs if run.manifest is not None else {} for run in (a, b))
    for name in sorted(one.keys() & two.keys()):
        if name.endswith(".safetensors") and one[name] != two[name]:
            return [
                Divergence(
                    kind="outputs",
                    step=len(a.steps),
                    a=one[name],
                    b=two[name],
                    detail=f"{name}, after it",
                )
            ]
    return []


def _cited(explanation: Explanation) -> str:
    return f"{explanation.message} ({explanation.evidence})"
