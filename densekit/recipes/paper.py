"""What the paper reports (recipes/paper.yaml): which recipe should score what, and where its
sources disagree.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from densekit.errors import UsageError
from densekit.recipes.load import recipe_names
from densekit.recipes.noise import Baseline, CalibrationTarget, Noise
from densekit.recipes.yaml_lines import RECIPES_DIR, error_lines, read_document
from densekit.spec.part import Part

PAPER_FILE = RECIPES_DIR / "paper.yaml"
Number = int | float
"""A value as printed: 1523 has no decimals, 62.0 has one."""


class Protocol(Part):
    """How a benchmark was asked and scored."""

    text: str
    source: str
    judge: str | None = None
    """The model that gave the scores, where one did."""


class Benchmark(Part):
    """What a column means. A higher value is better, in every one."""

    title: str
    range: tuple[float, float]
    protocol: str


class Row(Part):
    """One line of a table: the scores of a recipe, or of somebody else's model."""

    label: str
    recipe: str | None = None
    model: str | None = None
    values: tuple[Number | None, ...]
    """One for each column of the table; None where the source has none."""
    measured_by_authors: tuple[str, ...] = ()
    """Columns of somebody else's model that the paper's authors evaluated themselves."""

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.recipe is None) == (self.model is None):
            raise ValueError("a row names a `recipe` or a `model`: give one of them")
        return self

    @property
    def subject(self) -> str:
        """The recipe's or the model's name."""
        return self.recipe or self.model or ""


class Table(Part):
    """One table, figure or page that reports scores."""

    name: str
    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        seen: set[str] = set()
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("`columns` lists a column twice")
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"row {row.label} has {len(row.values)} values for {len(self.columns)} columns"
                )
            if row.subject in seen:
                raise ValueError(f"{row.subject} has two rows")
            if not set(row.measured_by_authors) <= set(self.columns):
                raise ValueError(
                    f"row {row.label}: `measured_by_authors` names no column of this table"
                )
            seen.add(row.subject)
        return self

    def cells(self) -> Iterator[tuple[str, str, Number]]:
        """(subject, benchmark, value) of every cell that is filled."""
        for row in self.rows:
            for benchmark, value in zip(self.columns, row.values, strict=True):
                if value is not None:
                    yield row.subject, benchmark, value


class Conflict(Part):
    """One score that sources report differently."""

    subject: str
    benchmark: str
    values: dict[str, Number]
    """By table."""
    take: Number
    """The value that a run is compared with."""
    why: str

    @model_validator(mode="after")
    def _takes_one(self) -> Self:
        if self.take not in self.values.values():
            raise ValueError(f"take {self.take}: no source has that value")
        return self


class Rerun(Part):
    """What somebody else's training of a recipe scored: no claim of the paper, but a sign of how
    far runs vary.
    """

    recipe: str
    values: dict[str, Number]
    source: str


class Score(Part):
    """What a recipe should score on one benchmark."""

    benchmark: str
    value: Number
    """As reported; where sources disagree, the one that paper.yaml takes."""
    sources: dict[str, Number]
    """The value by table."""
    conflict: Conflict | None
    protocol: str


class Paper(Part):
    """recipes/paper.yaml."""

    evaluation: str
    protocols: dict[str, Protocol]
    benchmarks: dict[str, Benchmark]
    tables: dict[str, Table]
    conflicts: tuple[Conflict, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    noise: dict[str, Noise] = Field(default_factory=dict)
    """By benchmark."""
    baselines: tuple[Baseline, ...] = ()
    calibration: tuple[CalibrationTarget, ...] = ()
    notes: tuple[str, ...] = ()

    @field_validator("benchmarks")
    @classmethod
    def _protocols_exist(
        cls, benchmarks: dict[str, Benchmark], info: ValidationInfo
    ) -> dict[str, Benchmark]:
        for name, benchmark in benchmarks.items():
            if benchmark.protocol not in info.data.get("protocols", {}):
                raise ValueError(f"{name}: no protocol named {benchmark.protocol!r}")
        return benchmarks

    @model_validator(mode="after")
    def _cells_make_sense(self) -> Self:
        known = set(recipe_names())
        reported = [(key, *cell) for key, table in self.tables.items() for cell in table.cells()]
        reported += [
            (rerun.source, rerun.recipe, *item)
            for rerun in self.reruns
            for item in rerun.values.items()
        ]
        columns = [(key, column) for key, table in self.tables.items() for column in table.columns]
        unknown = sorted(
            {f"{key}: {column}" for key, column in columns if column not in self.benchmarks}
        )
        if unknown:
            raise ValueError(f"no benchmark of that name: {', '.join(unknown)}")
        rows = [row.recipe for table in self.tables.values() for row in table.rows if row.recipe]
        strangers = sorted(
            {
                name
                for name in (*rows, *(rerun.recipe for rerun in self.reruns))
                if name not in known
            }
        )
        if strangers:
            raise ValueError(f"no recipe of that name: {', '.join(strangers)}")
        for key, subject, benchmark, value in reported:
            low, high = self.benchmarks[benchmark].range
            if not low <= value <= high:
                raise ValueError(
                    f"{key}: {subject}: {benchmark} {value} is not between {low:g} and {high:g}"
                )
        return self

    @model_validator(mode="after")
    def _conflicts_are_the_tables(self) -> Self:
        listed = {(conflict.subject, conflict.benchmark): conflict for conflict in self.conflicts}
        if len(listed) != len(self.conflicts):
            raise ValueError("`conflicts` lists one score twice")
        for (subject, benchmark), values in self._reported.items():
            conflict = listed.pop((subject, benchmark), None)
            if agree(list(values.values())) != (conflict is None):
                reported = ", ".join(f"{table} {value}" for table, value in values.items())
                verb = "agree, but are listed" if conflict else "disagree and are not listed"
                raise ValueError(f"{subject}: {benchmark}: {reported} {verb} in `conflicts`")
            if conflict and conflict.values != values:
                raise ValueError(f"`conflicts`: {subject}: {benchmark}: the tables have {values}")
        if listed:
            raise ValueError(f"`conflicts`: no table has {', '.join(map(' '.join, listed))}")
        return self

    @model_validator(mode="after")
    def _yardsticks_exist(self) -> Self:
        named = {*self.noise, *(target.benchmark for target in self.calibration)}
        if unknown := sorted(named - self.benchmarks.keys()):
            raise ValueError(f"no benchmark of that name: {', '.join(unknown)}")
        subjects = {subject for subject, _ in self._reported}
        better = [name for baseline in self.baselines for name in baseline.recipes]
        named = {*better, *(baseline.than for baseline in self.baselines)}
        if strangers := sorted(named - subjects):
            raise ValueError(f"`baselines`: no table has {', '.join(strangers)}")
        if len(set(better)) != len(better):
            raise ValueError("`baselines` lists a recipe twice")
        return self

    @cached_property
    def _reported(self) -> dict[tuple[str, str], dict[str, Number]]:
        found: dict[tuple[str, str], dict[str, Number]] = defaultdict(dict)
        for key, table in self.tables.items():
            for subject, benchmark, value in table.cells():
                found[subject, benchmark][key] = value
        return found

    def scores(self, subject: str) -> dict[str, Score]:
        """What a recipe (or a model of others) should score, by benchmark; {} where nothing was
        reported.
        """
        conflicts = {
            (conflict.subject, conflict.benchmark): conflict for conflict in self.conflicts
        }
        return {
            benchmark: Score(
                benchmark=benchmark,
                value=conflict.take
                if (conflict := conflicts.get((subject, benchmark)))
                else _finest(values),
                sources=values,
                conflict=conflict,
                protocol=self.benchmarks[benchmark].protocol,
            )
            for (name, benchmark), values in self._reported.items()
            if name == subject
        }

    def baseline(self, recipe: str) -> str | None:
        """What the paper shows a recipe to be better than: a recipe or somebody else's model."""
        return next((each.than for each in self.baselines if recipe in each.recipes), None)

    def gain(self, recipe: str, benchmark: str) -> float | None:
        """The printed gain of a recipe over its baseline; None where one of the two is not
        printed.
        """
        than = self.baseline(recipe)
        if than is None:
            return None
        pair = [self.scores(subject).get(benchmark) for subject in (recipe, than)]
        if pair[0] is None or pair[1] is None:
            return None
        digits = max(decimals(pair[0].value), decimals(pair[1].value))
        return round(pair[0].value - pair[1].value, digits)


def load_paper(path: Path = PAPER_FILE) -> Paper:
    """Read and check the reported scores. Raises UsageError that names file, line and what is
    wrong.
    """
    document = read_document(path)
    try:
        return Paper.model_validate(document.values)
    except ValidationError as error:
        raise UsageError(error_lines(error, document, Paper)) from None


def agree(values: Sequence[Number]) -> bool:
    """Whether values are one number, as far as the one with the fewest decimals says (1523 and
    1523.2 are).
    """
    digits = min(map(decimals, values))
    return len({round(value, digits) for value in values}) == 1


def _finest(values: dict[str, Number]) -> Number:
    return max(values.values(), key=decimals)


def decimals(value: Number) -> int:
    """Digits behind the point of a value as it was printed."""
    return len(repr(value).partition(".")[2])
