"""A benchmark's parquet files from the hub, as questions and images that are asked.

Columns are those of the repositories' cards; GQA's are from memory. No real file was at hand.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densekit.data.parquet_rows import Row, one_image, rows_of, write_image
from densekit.errors import DataError, UsageError
from densekit.evaluate.labels import OWN_SUFFIX, QUESTION, first_problem, mmbench_row
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Question, check_counts
from densekit.files.whole import written_whole

IMAGES = "images"
DIGITS = 20
"""Of an image's SHA-256, which names it: rows about one picture then have one image."""
YES_OR_NO = " Please answer yes or no."
"""Behind MME's questions; the protocol has a sentence of its own there."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the rows of a benchmark become questions."""

    files: str
    """Pattern of the files with its questions, below its folder."""
    columns: tuple[str, ...]
    """That every row has."""
    question: Callable[[Row], dict[str, Any]]
    """The fields of a question, without its image."""
    image_id: str | None = None
    """Column that names a row's image; None: the image's bytes do."""
    images: str | None = None
    """Pattern of the files that have the images, by `id`; None: they are in the questions' rows."""


def unpack_benchmark(benchmark: str, source: Path, target: Path) -> tuple[Path, int, int]:
    """Write `<benchmark>.jsonl` and images/ into `target`; returns the file, and how many questions
    and images it has. Running it again writes the same.

    Raises UsageError for a benchmark whose files are not read and a folder without them, DataError
    that names file and row for what is of another form, and as `check_counts`.
    """
    protocol = get_protocol(benchmark)
    form = FORMS.get(benchmark)
    if form is None:
        raise UsageError(
            f"{protocol.title}'s parquet files are not read (those of {', '.join(FORMS)} are): "
            f"write its questions as {benchmark}{OWN_SUFFIX} (docs/evaluation.md)"
        )
    folder = target / IMAGES
    if form.images is not None:
        _write_images(source, form.images, folder)
    questions = list(_numbered(_questions(form, source, folder)))
    check_counts(protocol, questions)
    path = target / f"{benchmark}{OWN_SUFFIX}"
    with written_whole(path, flush=True) as temporary:
        lines = (json.dumps(asdict(question), ensure_ascii=False) for question in questions)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path, len(questions), len({question.image for question in questions} - {None})


def has_parquet(benchmark: str, folder: Path) -> bool:
    """Whether the files that `unpack_benchmark` reads are in a folder."""
    form = FORMS.get(benchmark)
    return form is not None and any(folder.glob(form.files))


def _questions(form: Form, source: Path, folder: Path) -> Iterator[Question]:
    written: set[str] = set()
    for path in _files(source, form.files):
        columns = (*form.columns, "image")
        for number, row in enumerate(rows_of(path, columns, any_of=form.columns[:1])):
            place = f"{path}: row {number}"
            try:
                fields = form.question(row)
                name = row[form.image_id] if form.image_id else None
                image = name if form.images else _image(row, name, folder, written)
                yield QUESTION.validate_python({**fields, "image": image})
            except KeyError as error:
                problem = f"no column `{error.args[0]}`"
            except ValidationError as error:
                problem = first_problem(error)
            except (TypeError, AttributeError, DataError) as error:
                problem = str(error)
            else:
                continue
            raise DataError(f"{place}: {problem}; the file is of another form than its card says")


def _image(row: Row, name: str | None, folder: Path, written: set[str]) -> str | None:
    """What a row's image is called, which is written once: `name`, else by its bytes."""
    data = one_image(row)
    if isinstance(data, str):
        raise DataError(f"its image is the path {data}, and bytes are read")
    if data is None:
        return None
    name = hashlib.sha256(data).hexdigest()[:DIGITS] if name is None else name
    if Path(name).name != name:
        raise DataError(f"its image is called {name}, which is no file's name")
    if name not in written:
        write_image(name, data, folder)
        written.add(name)
    return name


def _write_images(source: Path, pattern: str, folder: Path) -> None:
    written: set[str] = set()
    for path in _files(source, pattern):
        for number, row in enumerate(rows_of(path, ("id", "image"), any_of=("id",))):
            try:
                _image(row, row["id"], folder, written)
            except DataError as error:
                raise DataError(f"{path}: row {number}: {error}; fetch it again") from None


def _files(source: Path, pattern: str) -> list[Path]:
    found = sorted(source.glob(pattern))
    if not found:
        raise UsageError(f"{source} has no file {pattern}; give the folder that was fetched")
    return found


def _numbered(questions: Iterator[Question]) -> Iterator[Question]:
    """With ids that come once: the second of one id is `<id>/2` (MME has two on an image)."""
    seen: Counter[str] = Counter()
    for question in questions:
        seen[question.id] += 1
        count = seen[question.id]
        yield (
            question
            if count == 1
            else Question(**{**asdict(question), "id": f"{question.id}/{count}"})
        )


def _mme(row: Row) -> dict[str, Any]:
    return {
        "id": row["question_id"],
        "text": row["question"].replace(YES_OR_NO, ""),
        "gold": (row["answer"],),
        "category": row["category"],
    }


def _ten_answers(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["question_id"]),
        "text": row["question"],
        "gold": row["answers"],
        "ocr_tokens": row.get("ocr_tokens") or (),
    }


def _mmbench(row: Row) -> dict[str, Any]:
    cells = {name: "" if value is None else str(value) for name, value in row.items()}
    fields = mmbench_row(cells)
    del fields["image"]
    return fields


def _gqa(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "text": row["question"],
        "gold": (row["answer"],),
        "category": row["types"]["structural"],
    }


_MMBENCH = ("index", "question", "hint", "answer", "A", "B", "C", "D", "category")
_GQA = ("id", "imageId", "question", "answer", "types")
FORMS: dict[str, Form] = {
    "gqa": Form(
        files="**/testdev_balanced_instructions/*.parquet",
        columns=_GQA,
        question=_gqa,
        image_id="imageId",
        images="**/testdev_balanced_images/*.parquet",
    ),
    "mmb": Form(files="**/en/dev-*.parquet", columns=_MMBENCH, question=_mmbench),
    "mmb_cn": Form(files="**/cn/dev-*.parquet", columns=_MMBENCH, question=_mmbench),
    "mme": Form(
        files="**/test-*.parquet",
        columns=("question_id", "question", "answer", "category"),
        question=_mme,
    ),
    "textvqa": Form(
        files="**/validation-*.parquet",
        columns=("question_id", "question", "answers", "ocr_tokens", "image_id"),
        question=_ten_answers,
        image_id="image_id",
    ),
    "vizwiz": Form(
        files="**/val-*.parquet",
        columns=("question_id", "question", "answers"),
        question=_ten_answers,
    ),
}
"""By benchmark."""
