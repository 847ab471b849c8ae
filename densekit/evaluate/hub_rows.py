"""A benchmark's parquet files from the hub, as questions and images that are asked.

Columns are those of the repositories' cards; GQA's are from memory. No real file was at hand.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densekit.data.parquet_rows import Row, one_image, rows_of, write_image
from densekit.errors import DataError, UsageError
from densekit.evaluate.labels import OWN_SUFFIX, QUESTION, first_problem, mmbench_row
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.protocols.mme import YES_OR_NO
from densekit.evaluate.questions import Question, check_counts, refuse_twice
from densekit.files.whole import written_whole

IMAGES = "images"
DIGITS = 20
"""Of an image's SHA-256, where it names the image: rows about one picture then have one."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the rows of a benchmark become questions."""

    files: str
    """Pattern of the files with its questions, below its folder."""
    columns: tuple[str, ...]
    """That every row has."""
    question: Callable[[Row], dict[str, Any]]
    """The fields of a question, without its image."""
    image_id: Callable[[Row], str] | None = None
    """What a row's image is called; None: as its bytes."""
    images: str | None = None
    """Pattern of the files that have the images, by `id`; None: they are in the questions' rows."""
    shared_ids: bool = False
    """Whether several questions have one id."""


def unpack_benchmark(benchmark: str, source: Path, target: Path) -> tuple[Path, int, int]:
    """Write `<benchmark>.jsonl` and images/ into `target`; returns the file, and how many questions
    and images it has. Running it again writes the same.

    Raises UsageError for a benchmark whose files are not read and a folder without them, DataError
    that names file and row for what is of another form, for an id that comes twice, and as
    `check_counts`.
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
    questions = list(_questions(form, source, folder))
    if form.shared_ids:
        questions = list(_numbered(questions))
    refuse_twice(f"questions of {protocol.title} in {source}", [each.id for each in questions])
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
    written: dict[str, str] = {}
    for path in _files(source, form.files):
        columns = (*form.columns, "image")
        for number, row in enumerate(rows_of(path, columns, any_of=form.columns[:1])):
            place = f"{path}: row {number}"
            try:
                fields = form.question(row)
                name = form.image_id(row) if form.image_id else None
                image = name if form.images else _image(row, name, folder, written)
                question = QUESTION.validate_python({**fields, "image": image})
                if not (question.id and question.text):
                    raise DataError("its id or its question is empty")
                yield question
            except KeyError as error:
                problem = f"no column `{error.args[0]}`"
            except ValidationError as error:
                problem = first_problem(error)
            except (TypeError, AttributeError, DataError) as error:
                problem = str(error)
            else:
                continue
            raise DataError(f"{place}: {problem}; the file is of another form than its card says")


def _image(row: Row, name: str | None, folder: Path, written: dict[str, str]) -> str:
    """What a row's image is called, which is written once: `name`, else by its bytes. `written`:
    the digests by name.
    """
    data = one_image(row)
    if isinstance(data, str):
        raise DataError(f"its image is the path {data}, and bytes are read")
    if data is None:
        raise DataError("it has no `image`")
    digest = hashlib.sha256(data).hexdigest()
    name = digest[:DIGITS] if name is None else name
    if not isinstance(name, str) or Path(name).name != name:
        raise DataError(f"its image is called {name}, which is no file's name")
    if name not in written:
        write_image(name, data, folder)
        written[name] = digest
    if written[name] != digest:
        raise DataError(f"its image {name} is another one than an earlier row has of that name")
    return name


def _write_images(source: Path, pattern: str, folder: Path) -> None:
    written: dict[str, str] = {}
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


def _numbered(questions: Sequence[Question]) -> Iterator[Question]:
    """With ids that come once: the second of one id is `<id>/2`."""
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
        "id": "" if row["question_id"] is None else str(row["question_id"]),
        "text": row["question"],
        "gold": row["answers"],
    }


def _textvqa(row: Row) -> dict[str, Any]:
    return {**_ten_answers(row), "ocr_tokens": row["ocr_tokens"]}


def _mme_image(row: Row) -> str:
    """By the id that both questions on an image have: others may have the same bytes."""
    return str(row["question_id"]).replace("/", "_")


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
        image_id=itemgetter("imageId"),
        images="**/testdev_balanced_images/*.parquet",
    ),
    "mmb": Form(files="**/en/dev-*.parquet", columns=_MMBENCH, question=_mmbench),
    "mmb_cn": Form(files="**/cn/dev-*.parquet", columns=_MMBENCH, question=_mmbench),
    "mme": Form(
        files="**/test-*.parquet",
        columns=("question_id", "question", "answer", "category"),
        question=_mme,
        image_id=_mme_image,
        shared_ids=True,
    ),
    "textvqa": Form(
        files="**/validation-*.parquet",
        columns=("question_id", "question", "answers", "ocr_tokens", "image_id"),
        question=_textvqa,
        image_id=itemgetter("image_id"),
    ),
    "vizwiz": Form(
        files="**/val-*.parquet",
        columns=("question_id", "question", "answers"),
        question=_ten_answers,
    ),
}
"""By benchmark."""
