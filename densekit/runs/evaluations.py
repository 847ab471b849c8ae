"""The evaluations of a run, `<run>/evaluations/<hash>/`: what was asked of its model, what it
answered, and what that scored.

`evaluation.json` says what decides the answers and never changes: its hash names the folder.
`questions/<benchmark>.jsonl` is the plan, a question a line in the order that they are asked.
`answers/<benchmark>.jsonl` grows batch by batch in that order, each line chained to the one before.
`scores/<benchmark>.<semantics>.jsonl` and `results.json` follow from the answers.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from densekit.errors import DataError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_jsonl, read_object
from densekit.runs.benchmarks import Protocol, Score
from densekit.runs.layout import MATH_FILE, RunDir, WorkDir
from densekit.runs.versioned import read_versioned
from densekit.spec.anyres import AnyRes
from densekit.spec.imported import is_imported, read_imported
from densekit.spec.math import Math
from densekit.spec.part import Number, Part, PositiveInt, read_part
from densekit.spec.types import Device, Dtype, Semantics

EVALUATIONS = "evaluations"
"""Folder of a run, or of an imported checkpoint, that holds its evaluations."""
EVALUATION_FILE = "evaluation.json"
RESULTS_FILE = "results.json"
SCHEMA: Literal[1] = 1
REMEDY = "put back a copy of the file, or evaluate again (`densekit evaluate`)"


class EvaluatedModel(Part):
    """What decides an answer on the model's side."""

    files: dict[str, str]
    """SHA-256 of every file that is read, by part and name: weights, tower, processor, tokenizer.
    """
    template: str
    """Of conversations (densekit.text.templates)."""
    math: str | None
    """Hash of the run's math.json; None for an imported checkpoint."""
    anyres: AnyRes | None = Field(default=None, exclude_if=lambda value: value is None)
    """How it sees an image in several tiles."""


class AskedBenchmark(Part):
    """One benchmark, as it is asked here."""

    protocol: Protocol
    prompt_sha256: str
    """How the protocol asks (densekit.evaluate.protocols.prompts)."""
    data_sha256: str
    """Over all questions of the data with their right answers."""
    plan_sha256: str
    """Over the questions that are asked: texts, digests of the images, order and batches."""
    questions: PositiveInt
    """That are asked."""
    available: PositiveInt
    """That the data has; more than `questions` where a limit was set."""
    batch_size: PositiveInt


class Evaluation(Part):
    """evaluation.json: everything that decides the answers. No number of processes is in it."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    model: EvaluatedModel
    benchmarks: tuple[AskedBenchmark, ...]
    limit: PositiveInt | None
    """Images at most of each benchmark, chosen by hash; None: all."""
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)]
    """Names the generators of sampled answers, with the question's id."""
    dtype: Dtype
    device: Device
    kernel: str
    """Of attention."""
    environment: str | None
    """Versions of the packages, or the id of the container image; None where they are not known
    before it runs: its environment.json tells.
    """

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        return self.model_dump(mode="json", by_alias=True)

    @cached_property
    def sha256(self) -> str:
        """The hash that is the evaluation's identity."""
        return json_sha256(self.as_json())

    def key(self, benchmark: str) -> str:
        """What every answer to a benchmark depends on: the first link of its chain of answers.

        Two evaluations with the same key have the same answers, whatever else they ask, and however
        right answers, or what the protocol says of itself, were mended in between.
        """
        common = self.model_dump(mode="json", exclude={"benchmarks", "limit"})
        asked = self.asked(benchmark)
        decides = {"name", "layout", "suffix", "decoding", "image_aspect_ratio", "video"}
        return json_sha256(
            {
                **common,
                "protocol": asked.protocol.model_dump(mode="json", include=decides),
                "prompt_sha256": asked.prompt_sha256,
                "plan_sha256": asked.plan_sha256,
            }
        )

    def asks(self, benchmark: str) -> bool:
        """Whether a benchmark is among those that it asks."""
        return any(asked.protocol.name == benchmark for asked in self.benchmarks)

    def asked(self, benchmark: str) -> AskedBenchmark:
        """One of the benchmarks. Raises KeyError for another."""
        found = {asked.protocol.name: asked for asked in self.benchmarks}
        return found[benchmark]


class FlipRate(Part):
    """How many answers differ between batches of one and larger ones."""

    questions: PositiveInt
    """Asked both ways."""
    flips: Annotated[int, Field(ge=0, strict=True)]


class StoredResult(Part):
    """A benchmark's figures under one semantics, and what they rest on; results.json has many."""

    benchmark: str
    title: str
    split: str
    semantics: Semantics
    value: Number | None
    """On the scale of the paper's tables; None: the metric has none here, `problem` says why."""
    problem: str | None = None
    figures: dict[str, Number] = Field(default_factory=dict)
    """Beside the value: per category, and what others report under the same name."""
    questions: PositiveInt
    available: PositiveInt
    notes: dict[str, int] = Field(default_factory=dict)
    """How many scores carry each note."""
    other_protocol: str | None = None
    """Why the number is not the paper's, whatever the model; None: it can be compared."""
    official_dtype: Dtype
    dtype: Dtype
    batch_size: PositiveInt
    flip_rate: FlipRate | None = None
    """None where it was not measured: at the protocol's own batch size."""
    seed: int
    prompt_sha256: str
    data_sha256: str
    plan_sha256: str
    answers_sha256: str
    """Of the file of answers."""
    scores_sha256: str | None
    """Of the file of scores; None where there is no value."""

    @property
    def complete(self) -> bool:
        """Whether every question of the benchmark was asked."""
        return self.questions == self.available


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedQuestion:
    """A line of `questions/<benchmark>.jsonl`."""

    batch: int
    """Counted from 0; the lines of a batch follow each other."""
    question_id: str
    asked: str
    """The text, without the image's tag."""
    image: str | None
    """Where it is, with a root (densekit.spec.roots); None: a question without one."""
    image_sha256: str | None
    """Of the file."""
    question: Mapping[str, Any]
    """What the scorer reads: the fields of densekit.evaluate.questions."""

    @property
    def identity(self) -> list[Any]:
        """What the hash of a plan covers: a folder may have another place."""
        return [self.batch, self.question_id, self.asked, self.image_sha256]


def plan_sha256(plan: Sequence[PlannedQuestion]) -> str:
    """What identifies a plan."""
    return json_sha256([planned.identity for planned in plan])


@dataclass(frozen=True)
class EvaluationFolder(WorkDir):
    """One evaluation: where its files are, and how it is carried out."""

    verb = "answer"
    doing = "evaluating"
    worker = "evaluator"
    noun = "evaluation"
    stops = "the answers are kept"

    @property
    def source(self) -> Path:
        """The run, or the imported checkpoint, whose model is asked."""
        return self.path.parent.parent

    @property
    def name(self) -> str:
        """By its run's folder."""
        return f"evaluation of {self.source.name}"

    @property
    def again(self) -> str:
        """By the run's path."""
        return f"`densekit evaluate {shlex.quote(str(self.source))}`"

    @property
    def recipes(self) -> tuple[Math, ...]:
        """The run's; none of an imported checkpoint."""
        is_run = (self.source / MATH_FILE).is_file()
        return (RunDir(self.source).math.recipe,) if is_run else ()

    @property
    def reads(self) -> tuple[Path, ...]:
        """The model's folder, and those that a run's execution or an import's record names."""
        if not is_imported(self.source):
            roots = RunDir(self.source).execution.roots
            return (self.source, roots.models, roots.cache)
        record = read_imported(self.source)
        named = (record.language_model, record.vision_tower, record.tokenizer)
        return (self.source, *(self.source / name for name in named))

    @property
    def evaluation(self) -> Evaluation:
        """What is asked. Raises DataError for an evaluation.json that densekit did not write."""
        path = self.path / EVALUATION_FILE
        return read_versioned(Evaluation, path, schema=SCHEMA, what="the evaluation", remedy=REMEDY)

    @property
    def has_results(self) -> bool:
        """Whether all answers are there and were scored."""
        return (self.path / RESULTS_FILE).is_file()

    def questions(self, benchmark: str) -> Path:
        """The plan of a benchmark: JSON lines."""
        return self.path / "questions" / f"{benchmark}.jsonl"

    def answers(self, benchmark: str) -> Path:
        """What the model answered: JSON lines in the plan's order."""
        return self.path / "answers" / f"{benchmark}.jsonl"

    def scores(self, benchmark: str, semantics: Semantics) -> Path:
        """What the answers scored: a Score a line, in the plan's order."""
        return self.path / "scores" / f"{benchmark}.{semantics}.jsonl"


def evaluations(run: Path) -> tuple[EvaluationFolder, ...]:
    """The evaluations of a run or of an imported checkpoint, the oldest first; those that are not
    finished are among them.
    """
    found = [path.parent for path in (run / EVALUATIONS).glob(f"[!.]*/{EVALUATION_FILE}")]
    return tuple(EvaluationFolder(path) for path in sorted(found, key=_age))


def latest(run: Path) -> EvaluationFolder | None:
    """The newest evaluation with results; None where there is none."""
    finished = [each for each in evaluations(run) if each.has_results]
    return finished[-1] if finished else None


def newest_results(
    run: Path, semantics: Semantics = "faithful"
) -> Mapping[str, tuple[EvaluationFolder, StoredResult]]:
    """The result of each benchmark that counts, with the evaluation it is from: the newest one of
    all questions, or the newest where there is none of all.
    """
    found: dict[str, tuple[EvaluationFolder, StoredResult]] = {}
    for folder in evaluations(run):
        for result in read_results(folder) if folder.has_results else ():
            earlier = found.get(result.benchmark)
            if result.semantics == semantics and not (
                earlier and earlier[1].complete and not result.complete
            ):
                found[result.benchmark] = (folder, result)
    return found


def read_results(folder: EvaluationFolder) -> tuple[StoredResult, ...]:
    """results.json of an evaluation. Raises DataError for one that is missing or not what densekit
    wrote.
    """
    path = folder.path / RESULTS_FILE
    entries = read_object(path, "results", remedy=REMEDY)["results"]
    if not isinstance(entries, list):
        raise DataError(f"{path}: `results` must be a list; {REMEDY}")
    return tuple(
        read_part(StoredResult, entry, source=f"{path}: results.{number}", remedy=REMEDY)
        for number, entry in enumerate(entries)
    )


def read_plan(folder: EvaluationFolder, asked: AskedBenchmark) -> list[PlannedQuestion]:
    """The plan of a benchmark. Raises DataError for a file that is missing, not what densekit
    wrote, or not the one whose hash evaluation.json has.
    """
    path = folder.questions(asked.protocol.name)
    plan = _read_lines(path, PlannedQuestion)
    if plan_sha256(plan) != asked.plan_sha256:
        raise DataError(
            f"{path} is not the plan that {folder.path / EVALUATION_FILE} names: it was edited; "
            f"{REMEDY}"
        )
    return plan


def read_scores(
    folder: EvaluationFolder, benchmark: str, semantics: Semantics = "faithful"
) -> tuple[Score, ...]:
    """The score of every question, in the plan's order. Raises DataError for a file that is missing
    or not what densekit wrote.
    """
    return tuple(_read_lines(folder.scores(benchmark, semantics), Score))


Line = TypeVar("Line")


def _read_lines(path: Path, kind: type[Line]) -> list[Line]:
    adapter = TypeAdapter(kind)
    found: list[Line] = []
    for number, line in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        try:
            found.append(adapter.validate_python(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: line {number}: {field}: {first['msg']}; {REMEDY}") from None
    return found


def _age(folder: Path) -> tuple[float, str]:
    """When its results were written, or it was made."""
    results = folder / RESULTS_FILE
    path = results if results.is_file() else folder / EVALUATION_FILE
    return path.stat().st_mtime, folder.name
