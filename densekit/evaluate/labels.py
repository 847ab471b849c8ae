"""Questions with their right answers: a benchmark's own files, or densekit's JSON lines.

The forms of the own files are from memory; no reader has met a real one.
"""

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from densekit.errors import DataError
from densekit.evaluate.protocols.cells import read_cell, shown_hint, shown_options
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.mmbench import base_index
from densekit.evaluate.video_files import described_questions, judged_questions, paired_questions
from densekit.files.json_files import read_file, read_jsonl, read_object
from densekit.runs.benchmarks import Protocol

OWN_SUFFIX = ".jsonl"
"""Of a file with one Question in each line, for any benchmark."""
REMEDY = "give the benchmark's own file of questions and answers"
QUESTION = TypeAdapter(Question)
FIELDS = {field.name for field in fields(Question)}
LETTERS = "ABCD"
CELL_BYTES = 1 << 28
"""Of MMBench's table: images are cells."""


Row = dict[str, Any]
"""A question's fields, of unknown types, as a file has them."""


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
    questions: list[Question] = []
    try:
        for row in reader(path):
            questions.append(QUESTION.validate_python(row))
    except KeyError as error:
        problem = f" has no `{error.args[0]}`"
    except ValidationError as error:
        problem = f": {first_problem(error)}"
    except (TypeError, AttributeError):
        problem = " is of another form"
    else:
        return questions
    raise DataError(
        f"{path} does not have the form of {protocol.title}'s questions: question "
        f"{len(questions) + 1}{problem}; {REMEDY}"
    )


def _own(path: Path) -> Iterator[Question]:
    for number, row in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        where = f"{path}: line {number}"
        if unknown := sorted(row.keys() - FIELDS):
            raise DataError(
                f"{where} has `{unknown[0]}`, which is no field of a question "
                f"({', '.join(sorted(FIELDS))})"
            )
        try:
            yield QUESTION.validate_python(row)
        except ValidationError as error:
            raise DataError(f"{where}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """`gold.0: Input should be a valid string`; the files know lists where Python has tuples."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg'].replace('tuple', 'list')}"


def _gqa(path: Path) -> Iterator[Row]:
    """testdev_balanced_questions.json: id -> question."""
    for name, row in read_object(path, remedy=REMEDY).items():
        yield {
            "id": name,
            "text": row["question"],
            "image": row["imageId"],
            "gold": (row["answer"],),
            "category": row["types"]["structural"],
        }


def _pope(path: Path) -> Iterator[Row]:
    """coco_pope_random.json, JSON lines, with the other two categories beside it."""
    for category in ("random", "popular", "adversarial"):
        lines = read_jsonl(path.with_name(f"coco_pope_{category}.json"), remedy=REMEDY)
        for row in lines:
            yield {
                "id": f"{category}/{row['question_id']}",
                "text": row["text"],
                "image": row["image"],
                "gold": (row["label"],),
                "category": category,
            }


def _textvqa(path: Path) -> Iterator[Row]:
    """TextVQA_0.5.1_val.json: `data`."""
    for row in read_object(path, "data", remedy=REMEDY)["data"]:
        yield {
            "id": str(row["question_id"]),
            "text": row["question"],
            "image": str(row["image_id"]),
            "gold": row["answers"],
        }


def _seed(path: Path) -> Iterator[Row]:
    """SEED-Bench.json: `questions`."""
    for row in read_object(path, "questions", remedy=REMEDY)["questions"]:
        yield {
            "id": str(row["question_id"]),
            "text": row["question"],
            "image": str(row["data_id"]),
            "gold": (row["answer"],),
            "category": f"{row['data_type']}/{row['question_type_id']}",
            "options": [str(row[f"choice_{letter.lower()}"]) for letter in LETTERS],
        }


def _mmbench(path: Path) -> Iterator[Row]:
    """mmbench_*.tsv, whose images are cells."""
    csv.field_size_limit(min(CELL_BYTES, sys.maxsize))
    try:
        text = read_file(path, remedy=REMEDY).decode(
            "utf-8-sig"
        )  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); {REMEDY}") from None
    yield from map(mmbench_row, csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))


def mmbench_row(row: Mapping[str, str]) -> Row:
    """A question of MMBench's table, from the text of its cells."""
    base = str(base_index(row["index"]))
    return {
        "id": row["index"],
        "text": row["question"],
        "image": base,
        "gold": (row["answer"],),
        "category": row["category"],
        "options": shown_options([read_cell(row[letter] or "") for letter in LETTERS]),
        "hint": shown_hint(read_cell(row["hint"])),
        "rotation_of": base,
    }


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    **dict.fromkeys(("msvd", "msrvtt", "activitynet"), judged_questions),
    **dict.fromkeys(("video_ci", "video_do", "video_cu", "video_tu"), described_questions),
    "video_co": paired_questions,
    "gqa": _gqa,
    "mmb": _mmbench,
    "mmb_cn": _mmbench,
    "pope": _pope,
    "seed": _seed,
    "textvqa": _textvqa,
}
