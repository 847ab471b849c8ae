"""What a page says, in types: facts with the file that each is from, curves, predictions, files."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["bad", "warn", "note"]
"""`bad`: the page cannot be trusted as it is; `warn`: what a reader has to know;
`note`: the rest.
"""
FileState = Literal["recorded", "changed", "unrecorded", "missing"]
"""`recorded`: the file has the hash that the run recorded of it; `changed`: it has another;
`unrecorded`: nothing but this page holds its hash; `missing`: the run recorded it, and it is gone.
"""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One line of a table."""

    label: str
    value: str
    file: str = ""
    """Path inside the run of the file that says so; empty: it follows from others of the table."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with its facts, and what stands below them."""

    title: str
    facts: tuple[Fact, ...] = ()
    lines: tuple[str, ...] = ()
    """Sentences below the table."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that a reader must not miss."""

    level: Level
    message: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: `values[i]` belongs to `steps[i]`; None or a value that is not finite is a gap."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    faint: bool = False
    """Drawn behind the others: what a smoothed curve is of."""
    colour: int = 0
    """Which of the page's colours."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the optimizer steps that share an axis."""

    title: str
    series: tuple[Series, ...]
    file: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One benchmark: what the run scored, what the paper reports, what that means."""

    title: str
    ours: str
    interval: str
    paper: str
    verdict: str
    """A word, or empty: nobody judged it."""
    note: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A question with its picture, what the model answered, and what is right."""

    question: str
    answer: str
    reference: str
    score: float | None
    image: str
    """A data: URI; empty: none is shown, and `image_note` says why."""
    image_note: str = ""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Some predictions of one benchmark, with the files that they are from."""

    title: str
    shown: tuple[Prediction, ...]
    asked: int
    file: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A file that figures are from."""

    path: str
    """Inside the run."""
    sha256: str
    """Of the file as it is; empty where it is missing."""
    state: FileState
    recorded: str = ""
    """The hash that the run recorded, where it has one."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that a page says about one run."""

    name: str
    """Of its folder."""
    recipe: str
    state: str
    run_sha256: str
    problems: tuple[Problem, ...]
    sections: tuple[Section, ...]
    charts: tuple[Chart, ...]
    scores: tuple[ScoreRow, ...]
    predictions: tuple[Predictions, ...]
    missing: tuple[str, ...]
    """What a comparison with the paper still needs, a sentence each."""
    evidence: tuple[Evidence, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing recorded contradicts something else."""
        return not any(problem.level == "bad" for problem in self.problems)
