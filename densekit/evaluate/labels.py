"""Questions with their right answers: a benchmark's own files, or densekit's JSON lines."""

import csv
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from densekit.errors import DataError
from densekit.evaluate.protocols.cells import read_cell, shown_hint, shown_options
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.mmbench import base_index
from densekit.files.json_files import read_file, read_jsonl, read_object
from densekit.runs.benchmarks import Protocol

OWN_SUFFIX = ".jsonl"
"""Of a file with one Question in each line, for any benchmark."""
REMEDY = "give the benchmark's own file of questions and answers"
FIELDS = {field.name for field in fields(Question)}
LETTERS = "ABCD"
CELL_BYTES = 1 << 28
"""Of MMBench's table: images are cells."""


def read_questions(protocol: Protocol, path: Path) -> list[Question]:
    """The questions of a benchmark.

    Raises DataError for a file of another form, or a benchmark whose own form is not read.
    """
    if path.suffix == OWN_SUFFIX:
        return list(_own(path))
    reader = READERS.get(protocol.name)
    if reader is None:
        raise DataError(
            f"{path}: {protocol.title}'s own files are not read; give its questions as JSON lines "
            f"({OWN_SUFFIX}, docs/evaluation.md)"
        )
    try:
        return list(reader(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not have the form of {protocol.title}'s questions "
            f"({type(error).__name__}: {error}); {REMEDY}"
        ) from None


def _own(path: Path) -> Iterator[Question]:
    adapter = TypeAdapter(Question)
    for number, row in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        if unknown := sorted(row.keys() - FIELDS):
            raise DataError(f"{path}: line {number}: a question has no {', '.join(unknown)}")
        try:
            yield adapter.validate_python(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: line {number}: {field}: {first['msg']}") from None


def _gqa(path: Path) -> Iterator[Question]:
    """testdev_balanced_questions.json: id -> question."""
    for name, row in read_object(path, remedy=REMEDY).items():
        yield Question(
            id=name,
            text=row["question"],
            image=row["imageId"],
            gold=(row["answer"],),
            category=row["types"]["structural"],
        )


def _textvqa(path: Path) -> Iterator[Question]:
    """TextVQA_0.5.1_val.json: `data`."""
    for row in read_object(path, "data", remedy=REMEDY)["data"]:
        yield Question(
            id=str(row["question_id"]),
            text=row["question"],
            image=str(row["image_id"]),
            gold=tuple(row["answers"]),
        )


def _seed(path: Path) -> Iterator[Question]:
    """SEED-Bench.json: `questions`."""
    for row in read_object(path, "questions", remedy=REMEDY)["questions"]:
        yield Question(
            id=str(row["question_id"]),
            text=row["question"],
            image=str(row["data_id"]),
            gold=(row["answer"],),
            category=f"{row['data_type']}/{row['question_type_id']}",
            options=tuple(row[f"choice_{letter.lower()}"] for letter in LETTERS),
        )


def _mmbench(path: Path) -> Iterator[Question]:
    """mmbench_*.tsv, whose images are cells."""
    csv.field_size_limit(min(CELL_BYTES, sys.maxsize))
    text = read_file(path, remedy=REMEDY).decode("utf-8", errors="replace")
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"):
        base = str(base_index(row["index"]))
        yield Question(
            id=row["index"],
            text=row["question"],
            image=base,
            gold=(row["answer"],),
            category=row["category"],
            options=shown_options([read_cell(row[letter] or "") for letter in LETTERS]),
            hint=shown_hint(read_cell(row["hint"])),
            rotation_of=base,
        )


READERS: dict[str, Callable[[Path], Iterator[Question]]] = {
    "gqa": _gqa,
    "mmb": _mmbench,
    "mmb_cn": _mmbench,
    "seed": _seed,
    "textvqa": _textvqa,
}
