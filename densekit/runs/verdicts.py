"""verdict.json of a run: what its scores say about the paper's numbers, and about its gain over a
baseline. Written by `densekit verdict`, read by whoever shows a run.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from densekit.errors import DataError
from densekit.files.json_files import write_json
from densekit.runs.evaluations import EvaluationFolder, StoredResult, newest_results
from densekit.runs.layout import RunDir
from densekit.runs.versioned import read_versioned
from densekit.spec.part import Number, Part, PositiveInt

VERDICT_FILE = "verdict.json"
SCHEMA: Literal[1] = 1
REMEDY = "remove it and run `densekit verdict` again"

Reproduction = Literal["REPRODUCED", "COMPATIBLE", "DIVERGED"]
"""What the statistics say of a run's value and a printed one."""
Withheld = Literal["OTHER PROTOCOL", "UNCALIBRATED", "INCOMPLETE"]
"""Why they are not asked."""
WORDS: tuple[Reproduction | Withheld, ...] = (
    *("DIVERGED", "COMPATIBLE", "REPRODUCED"),
    *("UNCALIBRATED", "INCOMPLETE", "OTHER PROTOCOL"),
)
"""The verdicts, that first by which a run with several is called."""
Claim = Literal["SUPPORTED", "NOT SHOWN", "CONTRADICTED"]
"""What they say of "A is better than B"."""


class SeedTerm(Part):
    """How large the noise of training is taken to be."""

    sd: Number
    own: bool
    """From own runs; else from recipes/paper.yaml."""
    source: str


class Line(Part):
    """One benchmark of a verdict."""

    benchmark: str
    title: str
    reported: Number | None = None
    """None: the paper reports nothing here, and there is no verdict."""
    ours: Number | None = None
    """The mean of the runs; None where they have no value."""
    by_run: tuple[Number, ...] = ()
    interval: tuple[Number, Number] | None = None
    """95 %, over the images that might have been asked: of a score without a reported one."""
    reach: Number | None = None
    """A rerun of the recipe lies within `reported` plus or minus this, with 95 %."""
    seed: SeedTerm | None = None
    p: Number | None = None
    """Of no difference, after Holm over the benchmarks with a verdict."""
    margin: Number | None = None
    """Within which a value is the same."""
    smallest_margin: Number | None = None
    """What even an exact hit would need to be called REPRODUCED."""
    verdict: Reproduction | Withheld | None = None
    note: str = ""


class Gain(Part):
    """One benchmark of the claim that a recipe is better than a baseline."""

    benchmark: str
    title: str
    a: Number
    """The mean of A's runs."""
    b: Number
    difference: Number
    low: Number
    """Of the 95 % interval."""
    high: Number
    p: Number
    """Of no difference, after Holm over the benchmarks of the claim."""
    reported: Number | None = None
    """The paper's own gain."""
    seed: SeedTerm | None = None
    question_sd: Number
    """Of the difference, over images."""
    claim: Claim
    effect: Number | None = None
    """Where nothing was shown: the difference that `runs_needed` is about, the paper's if it has
    one, else the one found.
    """
    runs_needed: PositiveInt | None = None
    """Runs an arm that would show `effect` in four of five cases; None: no number of them."""
    note: str = ""


class Gains(Part):
    """The claim "A is better than B" over all benchmarks that both were asked."""

    recipe: str
    """Name of A's recipe, or of its folder."""
    runs: tuple[str, ...]
    """Hashes of math.json of A's runs; an imported checkpoint has its folder's name."""
    baseline: str
    baseline_runs: tuple[str, ...]
    lines: tuple[Gain, ...]
    left_out: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Benchmarks without a value in every run, with how many have one: `MME-P (1 of 2 runs)`."""


class Verdict(Part):
    """verdict.json."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    recipe: str
    runs: tuple[str, ...]
    """Hashes of math.json of the runs that were judged together."""
    evaluations: tuple[str, ...]
    """Folders of their evaluations, so that an older verdict shows."""
    changed: tuple[str, ...] = ()
    """Fields in which the runs differ from the recipe of their name that ships: then the paper
    reports nothing on them.
    """
    calibrated: tuple[str, ...] = ()
    """The calibrations that passed, a line each."""
    lines: tuple[Line, ...]
    gains: Gains | None = None

    @property
    def failed(self) -> bool:
        """Whether a number diverged or a claim is contradicted."""
        gains = self.gains.lines if self.gains else ()
        return any(line.verdict == "DIVERGED" for line in self.lines) or any(
            gain.claim == "CONTRADICTED" for gain in gains
        )

    @property
    def word(self) -> str:
        """The verdict in one word: the worst one that the statistics gave, else why they gave
        none; `no verdict` where the paper reports nothing.
        """
        return next(iter(self.counts), "no verdict")

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict, the one that tells most first."""
        given = Counter(line.verdict for line in self.lines)
        return {word: given[word] for word in WORDS if given[word]}


def write_verdict(run: Path, verdict: Verdict) -> Path:
    """Write verdict.json into a run; returns its path."""
    path = run / VERDICT_FILE
    write_json(path, verdict.model_dump(mode="json", by_alias=True))
    return path


def read_verdict(run: Path) -> Verdict | None:
    """The verdict of a run; None where there is none yet. Raises DataError for a verdict.json that
    densekit did not write, and for that of another run.
    """
    path = run / VERDICT_FILE
    if not os.path.lexists(path):
        return None
    verdict = read_versioned(Verdict, path, schema=SCHEMA, what="the verdict", remedy=REMEDY)
    if RunDir(run).sha256 not in verdict.runs:
        raise DataError(f"{path} is another run's; {REMEDY}")
    return verdict


def newer_answers(
    verdict: Verdict, results: Mapping[str, tuple[EvaluationFolder, StoredResult]]
) -> tuple[str, ...]:
    """The benchmarks that were asked anew since a verdict, among the newest results of its run."""
    return tuple(
        name for name, (folder, _) in results.items() if folder.path.name not in verdict.evaluations
    )


def word_of(run: Path) -> str:
    """The verdict of a run in one word, `(outdated)` behind it where a benchmark was asked anew
    since; empty where there is none. Raises DataError for files that
    cannot be read.
    """
    verdict = read_verdict(run)
    if verdict is None:
        return ""
    return (
        f"{verdict.word} (outdated)"
        if newer_answers(verdict, newest_results(run))
        else verdict.word
    )


def verdicts_here(runs_dir: Path) -> dict[str, str]:
    """The word of the newest verdict on each recipe, of the runs in a folder.

    A verdict.json that cannot be read is `damaged`; a folder that is no run is passed over.
    """
    found: dict[str, str] = {}
    files = sorted(runs_dir.glob(f"*/{VERDICT_FILE}"), key=lambda path: path.stat().st_mtime)
    for path in files:
        try:
            name = RunDir(path.parent).name
        except DataError:
            continue
        try:
            found[name] = word_of(path.parent) or "damaged"
        except DataError:
            found[name] = "damaged"
    return found
