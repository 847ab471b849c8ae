"""The package easy-vqa 1.0 as a data set and a benchmark: 5,000 pictures of one coloured shape,
with questions by other people.

Its train part becomes captions (stage 1) and conversations, one an image (stage 2); its test part
the questions of the benchmark `easy_vqa`. Nothing is drawn or chosen at random.
"""

import importlib.util
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.files.permissions import follow_umask
from densekit.toy.dialogues import TAG_FIRST, Entry, dialogue_line, entry

FORMAT = 1
"""Raised whenever the same package would become something else."""
RECORD = "easy_vqa.json"
INSTALL = "`make easy-vqa` installs version 1.0 and makes the data set"
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
SHORT = "Answer the question using a single word or phrase."
"""Behind a conversation's first question, as in the published mixture, and behind every question of
the benchmark.
"""
CAPTION_PROMPT = "Describe the image."


class Asked(NamedTuple):
    """One question of the package."""

    text: str
    answer: str
    image: int
    """Names the file."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Train or test, as version 1.0 has it."""

    name: str
    images: int
    questions: int
    sha256: str
    """Of questions.json, measured in the published package."""


TRAIN = Part(
    name="train",
    images=4_000,
    questions=38_575,
    sha256="bb67697636aed0e65631d4266824aebeae5c833b0f37ed781e20752e85617ec5",
)
TEST = Part(
    name="test",
    images=1_000,
    questions=9_673,
    sha256="0d4630a51bafec65343e2f6af9cdd20cf8eae214344ef57636202eec409553f7",
)
ROWS = TypeAdapter(list[Asked])


def package_folder() -> Path:
    """The installed package's data. Raises DataError where it is not installed."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package easy-vqa is not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"


def make_training(package: Path, directory: Path) -> None:
    """Write images/, easy_vqa_stage1.json, easy_vqa_stage2.json, text.txt (the conversations, one a
    line) and a record into `directory`, which appears in one rename; one that is made is left.

    Raises DataError for another version of the package, and when `directory` is something else.
    """

    def write(root: Path) -> None:
        asked = read_part(package, TRAIN)
        captions = [caption for image in asked if (caption := caption_of(image, asked[image]))]
        conversations = [conversation_of(image, rows) for image, rows in asked.items()]
        write_json(root / "easy_vqa_stage1.json", captions)
        write_json(root / "easy_vqa_stage2.json", conversations)
        lines = "".join(f"{dialogue_line(each)}\n" for each in conversations)
        (root / "text.txt").write_text(lines, encoding="utf-8")
        _copy_images(package, TRAIN, root / "images", asked)

    _appear(directory, TRAIN, write)


def make_benchmark(package: Path, directory: Path) -> None:
    """Write images/, easy_vqa.jsonl and a record into `directory`, as `make_training`."""

    def write(root: Path) -> None:
        asked = read_part(package, TEST)
        lines = "".join(f"{json.dumps(row)}\n" for row in questions_of(asked))
        (root / "easy_vqa.jsonl").write_text(lines, encoding="utf-8")
        _copy_images(package, TEST, root / "images", asked)

    _appear(directory, TEST, write)


def read_part(package: Path, part: Part) -> Mapping[int, Sequence[Asked]]:
    """The questions of each image, in the package's order. Raises DataError for another version."""
    path = package / part.name / "questions.json"
    if not path.is_file():
        raise DataError(f"{path} is missing: {INSTALL}")
    if (found := file_sha256(path)) != part.sha256:
        raise DataError(f"{path} has SHA-256 {found}, and version 1.0 has {part.sha256}: {INSTALL}")
    try:
        rows = ROWS.validate_python(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}; {INSTALL}") from None
    by_image: defaultdict[int, list[Asked]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    return dict(sorted(by_image.items()))


def caption_of(image: int, rows: Iterable[Asked]) -> Entry | None:
    """A stage-1 entry; None where the questions say neither colour nor shape.

    A colour or shape is the picture's when an answer names it, when a question that is not answered
    by yes or no names it (`what color is the circle?`), or when a question about it is answered
    with yes, or with no where it is asked as `not` or `no`.
    """
    said: set[str] = set()
    for row in rows:
        words = set(re.findall("[a-z]+", row.text))
        if row.answer not in ("yes", "no"):
            said |= words | {row.answer}
        elif (row.answer == "no") == bool(words & {"no", "not"}):
            said |= words
    colour = " ".join(name for name in COLOURS if name in said)
    shape = " ".join(name for name in SHAPES if name in said)
    if not colour and not shape:
        return None
    caption = " ".join(word for word in ("a", colour, shape or "shape") if word)
    return entry(f"caption{image}", [(TAG_FIRST.format(CAPTION_PROMPT), caption)], f"{image}.png")


def conversation_of(image: int, rows: Sequence[Asked]) -> Entry:
    """A stage-2 entry: all questions about a picture, in the package's order. The first one says
    how to answer, as in the published mixture.
    """
    first = TAG_FIRST.format(f"{rows[0].text}\n{SHORT}")
    rounds = [(first, rows[0].answer), *((row.text, row.answer) for row in rows[1:])]
    return entry(f"questions{image}", rounds, f"{image}.png")


def questions_of(asked: Mapping[int, Sequence[Asked]]) -> list[dict[str, object]]:
    """The benchmark's lines: `image/number` identifies a question, its kind is its category."""
    return [
        {
            "id": f"{image}/{number}",
            "text": row.text,
            "image": str(image),
            "gold": [row.answer],
            "category": category_of(row.answer),
        }
        for image, rows in asked.items()
        for number, row in enumerate(rows)
    ]


def category_of(answer: str) -> str:
    """What a right answer is. Raises DataError for an answer that version 1.0 does not have."""
    kinds = {"yes_no": ("yes", "no"), "colour": COLOURS, "shape": SHAPES}
    for kind, answers in kinds.items():
        if answer in answers:
            return kind
    raise DataError(f"`{answer}` is no answer of easy-vqa 1.0: {INSTALL}")


def _copy_images(package: Path, part: Part, folder: Path, images: Iterable[int]) -> None:
    folder.mkdir()
    for image in images:
        source = package / part.name / "images" / f"{image}.png"
        if not source.is_file():
            raise DataError(f"{source} is missing: {INSTALL}")
        shutil.copyfile(source, folder / source.name)


def _appear(directory: Path, part: Part, write: Callable[[Path], None]) -> None:
    record = {"format": FORMAT, "part": part.name, "questions_sha256": part.sha256}
    if directory.exists():
        if (directory / RECORD).is_file() and read_json(directory / RECORD) == record:
            return
        raise DataError(
            f"{directory} is there and was not made from easy-vqa 1.0 by this version of densekit: "
            "remove it, or choose another folder"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        follow_umask(scratch)
        write(scratch)
        write_json(scratch / RECORD, record)
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
