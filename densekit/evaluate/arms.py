"""An arm: runs of one recipe that differ only in their seed, with the results of their benchmarks.
A single run, or an imported checkpoint, is an arm too.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from densekit.errors import DataError, UsageError
from densekit.runs.benchmarks import Score
from densekit.runs.evaluations import EvaluationFolder, StoredResult, newest_results, read_scores
from densekit.runs.layout import MATH_FILE, RunDir
from densekit.spec.imported import is_imported
from densekit.spec.math import Math, RunMath
from densekit.spec.types import Semantics

SHOWN = 3


@dataclass(frozen=True)
class Member:
    """One run of an arm."""

    path: Path
    math: RunMath | None
    """None for an imported checkpoint."""
    results: Mapping[str, tuple[EvaluationFolder, StoredResult]]
    """By benchmark: the newest of all questions, else the newest."""

    def result(self, benchmark: str) -> StoredResult | None:
        """What it scored; None where it was not asked."""
        found = self.results.get(benchmark)
        return found[1] if found else None

    def scores(self, benchmark: str) -> tuple[Score, ...]:
        """The score of every question."""
        folder, result = self.results[benchmark]
        return read_scores(folder, benchmark, result.semantics)


@dataclass(frozen=True)
class Arm:
    """Members in the order given."""

    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """Of the recipe, or of an imported checkpoint's folder."""
        first = self.members[0]
        return first.math.recipe.name if first.math else first.path.name

    @property
    def recipe(self) -> Math | None:
        """Of its first run; None for an imported checkpoint."""
        first = self.members[0]
        return first.math.recipe if first.math else None

    @property
    def runs(self) -> tuple[str, ...]:
        """What identifies the members: hashes of math.json, or names of folders."""
        return tuple(each.math.sha256 if each.math else each.path.name for each in self.members)

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """That any member was asked, sorted."""
        return tuple(sorted({name for member in self.members for name in member.results}))

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """What a table calls each benchmark: its title, and its split where two have one title."""
        results = {
            name: result for each in self.members for name, (_, result) in each.results.items()
        }
        count = Counter(result.title for result in results.values())
        return {
            name: result.title if count[result.title] == 1 else f"{result.title}, {result.split}"
            for name, result in results.items()
        }

    def results(self, benchmark: str) -> list[StoredResult | None]:
        """Of every member."""
        return [member.result(benchmark) for member in self.members]

    @property
    def one_stage1(self) -> bool:
        """Whether several runs start from one stage 1: their noise is stage 2's alone."""
        starts = {member.math.starts_from for member in self.members if member.math}
        return len(self.members) > 1 and len(starts) == 1 and None not in starts


def read_arm(paths: Sequence[Path], semantics: Semantics = "faithful") -> Arm:
    """The runs of one arm.

    Raises DataError for a run that is not complete or was not evaluated, and UsageError for a run
    that is given twice and for runs that differ in more than their seed.
    """
    members = tuple(_member(path, semantics) for path in paths)
    _refuse_twice(members)
    first = members[0]
    for other in members[1:]:
        if fields := list(_differing(first, other)):
            more = f" and {len(fields) - SHOWN} more" if len(fields) > SHOWN else ""
            raise UsageError(
                f"{first.path} and {other.path} are no repetitions of one recipe: "
                f"{', '.join(fields[:SHOWN])}{more} differ; an arm's runs differ in their seed "
                "alone (`densekit run RECIPE --set seed=N`)"
            )
    return Arm(members)


def refuse_shared(a: Arm, b: Arm) -> None:
    """Raises UsageError for a run that stands in both arms."""
    _refuse_twice((*a.members, *b.members))


def _member(path: Path, semantics: Semantics) -> Member:
    math = None
    if (path / MATH_FILE).is_file():
        run = RunDir(path)
        math = run.math
        if not run.complete:
            raise DataError(
                f"{path} is not complete ({run.status.state}): `densekit run` finishes it"
            )
    elif not is_imported(path):
        raise DataError(
            f"{path} is neither a run nor an imported checkpoint; `densekit ls` lists the runs"
        )
    results = newest_results(path, semantics)
    if not results:
        raise DataError(
            f"{path} has no {semantics} result of any benchmark: `densekit evaluate "
            f"{shlex.quote(str(path))}` asks it"
        )
    return Member(path, math, results)


def _refuse_twice(members: Sequence[Member]) -> None:
    seen: dict[str, Path] = {}
    for member in members:
        identity = member.math.sha256 if member.math else str(member.path.resolve())
        if earlier := seen.get(identity):
            again = "given twice" if earlier == member.path else f"the same training as {earlier}"
            raise UsageError(
                f"{member.path} is {again}: a training that is counted twice makes seed noise look "
                "smaller than it is"
            )
        seen[identity] = member.path


def _differing(first: Member, other: Member) -> Iterator[str]:
    """The fields of math.json in which two runs differ, seeds apart."""
    if first.math is None or other.math is None:
        yield "an imported checkpoint, whose training is not known,"
        return
    yield from differing(
        first.math.model_dump(mode="json", exclude={"starts_from"}),
        other.math.model_dump(mode="json", exclude={"starts_from"}),
        skip={"recipe.seed"},
    )


def differing(
    first: Mapping[str, Any], other: Mapping[str, Any], *, skip: set[str], prefix: str = ""
) -> Iterator[str]:
    """Dotted names of the fields in which two JSON objects differ."""
    for name in sorted({*first, *other}):
        field = f"{prefix}{name}"
        one, two = first.get(name), other.get(name)
        if field in skip or one == two:
            continue
        if isinstance(one, dict) and isinstance(two, dict):
            yield from differing(one, two, skip=skip, prefix=f"{field}.")
        else:
            yield field
