"""Is arm A better than arm B? Every benchmark that both were asked, paired question by question."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from densekit.errors import DataError
from densekit.evaluate.alike import Asked, asked_alike
from densekit.evaluate.arms import Arm, refuse_shared
from densekit.evaluate.statistics.bootstrap import replicates, standard_error
from densekit.evaluate.statistics.difference import (
    Difference,
    claims,
    difference_of,
    question_component,
)
from densekit.evaluate.statistics.power import runs_needed
from densekit.evaluate.statistics.seeds import SeedNoise
from densekit.evaluate.statistics.significance import McNemar, mcnemar
from densekit.recipes.paper import Paper
from densekit.runs.verdicts import Claim, Gain, Gains, SeedTerm

NO_SEED_TERM = (
    "nothing says how far seeds lie apart on this benchmark: give at least 2 runs of one arm"
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One benchmark of both arms."""

    asked: Asked
    difference: Difference
    mcnemar: McNemar | None
    """Of two single runs whose questions are right or wrong."""


def prior_of(paper: Paper, benchmark: str) -> SeedNoise | None:
    """The seed noise that recipes/paper.yaml states; None for a benchmark of others."""
    noise = paper.noise.get(benchmark)
    if noise is None:
        return None
    return SeedNoise(sd=noise.seed_sd, df=math.inf, source=noise.seed_source)


def compare(a: Arm, b: Arm, paper: Paper) -> Gains:
    """A minus B on every benchmark that all runs were asked, with the verdict on "A is better".

    Raises UsageError for a run in both arms, DataError where no benchmark is common or the runs
    were not asked alike.
    """
    refuse_shared(a, b)
    common = [name for name in a.benchmarks if name in b.benchmarks]
    asked = {name: asked_alike(name, (*a.members, *b.members)) for name in common}
    found = {
        name: _compared(each, len(a.members), prior_of(paper, name))
        for name, each in asked.items()
        if each is not None
    }
    if not found:
        raise DataError(
            f"no benchmark has a value in all runs: A has {_names(a.benchmarks)}, B "
            f"{_names(b.benchmarks)}; evaluate both on the same ones"
        )
    said = claims({name: each.difference for name, each in found.items()})
    printed = paper.baseline(a.name) == b.name
    lines = tuple(
        _gain(
            name,
            each,
            *said[name],
            title=a.titles[name],
            runs=(len(a.members), len(b.members)),
            reported=paper.gain(a.name, name) if printed else None,
            one_stage1=a.one_stage1 or b.one_stage1,
        )
        for name, each in found.items()
    )
    return Gains(
        recipe=a.name,
        runs=a.runs,
        baseline=b.name,
        baseline_runs=b.runs,
        lines=lines,
        left_out=_left_out(a, b, found),
    )


def _left_out(a: Arm, b: Arm, found: Collection[str]) -> tuple[str, ...]:
    """The benchmarks that some runs have and others do not, in words."""
    titles = {**b.titles, **a.titles}
    lines = []
    for name in sorted({*a.benchmarks, *b.benchmarks} - {*found}):
        results = [*a.results(name), *b.results(name)]
        there = sum(result is not None and result.value is not None for result in results)
        lines.append(f"{titles[name]} ({there} of {len(results)} runs)")
    return tuple(lines)


def _compared(asked: Asked, runs_a: int, prior: SeedNoise | None) -> Compared:
    values = replicates(asked.tables, name=asked.protocol.name)
    of_difference = values[:, :runs_a].mean(axis=1) - values[:, runs_a:].mean(axis=1)
    a, b = asked.values[:runs_a], asked.values[runs_a:]
    table = asked.tables[0]
    question = question_component(
        standard_error(of_difference, table), len(table.clusters), mean(a) - mean(b)
    )
    difference = difference_of(a, b, question=question, prior=prior)
    return Compared(asked=asked, difference=difference, mcnemar=_mcnemar(asked))


def _mcnemar(asked: Asked) -> McNemar | None:
    """Where it applies: one run an arm, and a figure that is the share of right questions."""
    if len(asked.scores) != 2 or asked.protocol.figure != "accuracy":
        return None
    rights = [{score.question_id: score.score for score in scores} for scores in asked.scores]
    if not {*rights[0].values(), *rights[1].values()} <= {0.0, 1.0}:
        return None
    pairs = [(right, rights[1][name]) for name, right in rights[0].items()]
    return mcnemar(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)))


def _gain(
    name: str,
    found: Compared,
    claim: Claim,
    p: float,
    *,
    title: str,
    runs: tuple[int, int],
    reported: float | None,
    one_stage1: bool,
) -> Gain:
    difference = found.difference
    notes = [found.asked.incomplete]
    if difference.seeds is None:
        notes.append(NO_SEED_TERM)
    elif one_stage1:
        notes.append("an arm's runs share one stage 1: its seed noise is stage 2's alone")
    if found.mcnemar:
        test = found.mcnemar
        notes.append(
            f"these two models: {test.only_a} questions right in A alone, {test.only_b} in B alone "
            f"(McNemar p {test.p:.2g}); that holds for two trainings, not for their recipes"
        )
    values = found.asked.values
    effect = reported if reported and reported > 0 else difference.difference
    needed = _needed(effect, difference) if claim == "NOT SHOWN" else None
    return Gain(
        benchmark=name,
        title=title,
        a=float(np.mean(values[: runs[0]])),
        b=float(np.mean(values[runs[0] :])),
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        p=p,
        reported=reported,
        seed=seed_term(difference.seeds),
        question_sd=difference.question_sd,
        claim=claim,
        effect=effect if claim == "NOT SHOWN" else None,
        runs_needed=needed,
        note="; ".join(note for note in notes if note),
    )


def _needed(effect: float, difference: Difference) -> int | None:
    if difference.seeds is None or effect <= 0:
        return None
    return runs_needed(effect, seed_sd=difference.seeds.sd, question_sd=difference.question_sd)


def seed_term(seeds: SeedNoise | None) -> SeedTerm | None:
    """Seed noise as a verdict stores it."""
    if seeds is None:
        return None
    own = not math.isinf(seeds.df)
    return SeedTerm(sd=seeds.sd, own=own, source=seeds.source)


def _names(benchmarks: Sequence[str]) -> str:
    return ", ".join(benchmarks) or "none"
