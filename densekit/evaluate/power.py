"""How many runs the paper's own differences need, by the noise that recipes/paper.yaml states."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from densekit.errors import UsageError
from densekit.evaluate.statistics.power import detectable, questions_needed, runs_needed
from densekit.recipes.paper import Paper
from densekit.runs.verdicts import Gains
from densekit.spec.part import Number, Part, PositiveInt

SMALLEST, LARGEST = 0.001, 10_000
"""Of an effect and of noise: MME's perception ends at 2,000."""
RUNS_SHOWN = (2, 3, 5)
"""Runs an arm whose smallest difference is given."""


class PowerRow(Part):
    """One benchmark of one recipe."""

    recipe: str | None
    baseline: str | None
    benchmark: str
    title: str
    effect: Number | None
    """The difference to be shown; None: not given."""
    seed_sd: Number
    seed_source: str
    question_sd: Number
    runs: PositiveInt | None
    """Runs an arm that show it in four of five cases; None: more than 1,000, or no effect."""
    runs_these_questions: PositiveInt | None
    """The same for the claim about these very questions alone."""
    questions: PositiveInt | None
    """That the benchmark has; None where only the command line says how noisy they are."""
    questions_needed: Annotated[int, Field(gt=0, strict=True)] | None
    """That would show it if seeds made no difference."""
    shown: dict[int, Number]
    """Smallest difference that so many runs an arm show."""


def plan_power(
    names: Sequence[str],
    paper: Paper,
    *,
    effect: float | None = None,
    seed_sd: float | None = None,
    question_sd: float | None = None,
) -> list[PowerRow]:
    """A row for each benchmark named, and for each reported gain of each recipe named.

    Raises UsageError for an unknown name, a recipe without a reported gain, and numbers that no
    benchmark has.
    """
    for option, value in (("effect", effect), ("seed-sd", seed_sd), ("question-sd", question_sd)):
        if value is not None and not SMALLEST <= value <= LARGEST:
            raise UsageError(f"--{option} {value}: give a number from {SMALLEST} to {LARGEST:,}")
    rows = []
    for name in names:
        pairs: list[tuple[str, float | None]] = [(name, None)]
        recipe = None
        if name not in paper.benchmarks:
            recipe, pairs = name, _gains(name, paper)
        for benchmark, gain in pairs:
            rows.append(_row(recipe, benchmark, effect or gain, paper, seed_sd, question_sd))
    return rows


def power_of(gains: Gains) -> list[PowerRow]:
    """The power that the runs of a comparison had, by the noise that they have: a row for each
    benchmark whose seed noise is known. The difference to be shown is the one found, either way.
    """
    return [
        _power_row(
            (gains.recipe, gains.baseline, gain.benchmark, gain.title),
            effect=_shown(abs(gain.difference)) or None,
            seed=(_shown(gain.seed.sd), gain.seed.source),
            question_sd=_shown(gain.question_sd),
            questions=None,
        )
        for gain in gains.lines
        if gain.seed is not None
    ]


def _shown(value: float) -> float:
    """With the digits that a table has."""
    return float(f"{value:.3g}")


def _gains(recipe: str, paper: Paper) -> list[tuple[str, float | None]]:
    scores = paper.scores(recipe)
    if not scores:
        raise UsageError(
            f"{recipe} is neither a benchmark ({', '.join(paper.noise)}) nor a recipe that the "
            "paper reports on (`densekit recipes`)"
        )
    found = [(name, paper.gain(recipe, name)) for name in scores if name in paper.noise]
    gains: list[tuple[str, float | None]] = [
        (name, gain) for name, gain in found if gain is not None and gain > 0
    ]
    if not gains:
        raise UsageError(
            f"the paper prints no gain of {recipe} over a baseline; name benchmarks and --effect"
        )
    return gains


def _row(
    recipe: str | None,
    benchmark: str,
    effect: float | None,
    paper: Paper,
    seed_sd: float | None,
    question_sd: float | None,
) -> PowerRow:
    noise = paper.noise.get(benchmark)
    if noise is None and (seed_sd is None or question_sd is None):
        raise UsageError(
            f"recipes/paper.yaml does not say how noisy {benchmark} is: give --seed-sd and "
            "--question-sd"
        )
    source = "--seed-sd" if seed_sd or noise is None else noise.seed_source
    return _power_row(
        (
            recipe,
            None if recipe is None else paper.baseline(recipe),
            benchmark,
            paper.benchmarks[benchmark].title,
        ),
        effect=effect,
        seed=(seed_sd or (noise.seed_sd if noise else 0.0), source),
        question_sd=question_sd or (noise.question_sd if noise else 0.0),
        questions=noise.questions if noise and question_sd is None else None,
    )


def _power_row(
    names: tuple[str | None, str | None, str, str],
    *,
    effect: float | None,
    seed: tuple[float, str],
    question_sd: float,
    questions: int | None,
) -> PowerRow:
    """`names`: recipe, baseline, benchmark and its title; `seed`: its noise and who says so."""
    recipe, baseline, benchmark, title = names
    seed_sd, seed_source = seed
    return PowerRow(
        recipe=recipe,
        baseline=baseline,
        benchmark=benchmark,
        title=title,
        effect=effect,
        seed_sd=seed_sd,
        seed_source=seed_source,
        question_sd=question_sd,
        runs=runs_needed(effect, seed_sd=seed_sd, question_sd=question_sd) if effect else None,
        runs_these_questions=(
            runs_needed(effect, seed_sd=seed_sd, question_sd=0.0) if effect else None
        ),
        questions=questions,
        questions_needed=(
            questions_needed(effect, question_sd=question_sd, questions=questions)
            if effect and questions
            else None
        ),
        shown={
            runs: round(detectable(runs, seed_sd=seed_sd, question_sd=question_sd), 2)
            for runs in RUNS_SHOWN
        },
    )
