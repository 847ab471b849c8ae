"""Parquet files of the hub as questions: what their rows become, and what is refused."""

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from densekit.errors import DataError, UsageError
from densekit.evaluate import hub_rows
from densekit.evaluate.data import folder_of, read_data
from densekit.evaluate.hub_rows import FORMS, unpack_benchmark
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Question
from densekit.runs.benchmarks import Protocol
from densekit.spec.roots import Roots


def picture(level: int) -> dict[str, Any]:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


MMBENCH = {
    "index": 7,
    "question": "Which?",
    "hint": "nan",
    "answer": "B",
    "A": "red",
    "B": "blue",
    "C": "nan",
    "D": None,
    "category": "colour",
    "image": picture(1),
}
ROTATED = {**MMBENCH, "index": 1_000_007, "A": "blue", "B": "red", "answer": "A"}
MME = {
    "question_id": "color/1.png",
    "image": picture(2),
    "question": "Is it red? Please answer yes or no.",
    "answer": "Yes",
    "category": "color",
}
TEXTVQA = {
    "image_id": "0a1b",
    "question_id": 5,
    "question": "what is written?",
    "answers": ["stop"] * 10,
    "ocr_tokens": ["STOP", "now"],
    "image": picture(3),
}
WITHOUT_OCR = {name: value for name, value in TEXTVQA.items() if name != "ocr_tokens"}
REPAINTED = {**TEXTVQA, "question_id": 6, "image": picture(30)}
VIZWIZ = {
    "question_id": "val_1.jpg",
    "image": picture(4),
    "question": "What is this?",
    "answers": ["a can"] * 10,
    "category": "other",
}
GQA = {
    "id": "201",
    "imageId": "n1",
    "question": "Is it?",
    "answer": "yes",
    "types": {"structural": "verify"},
}
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "mmb": {"en/dev-00000-of-00001.parquet": [MMBENCH, ROTATED], "en/test-0.parquet": [MMBENCH]},
    "mmb_cn": {"data/cn/dev-0.parquet": [MMBENCH, ROTATED]},
    "mme": {"data/test-0.parquet": [MME, {**MME, "question": "Is it?", "answer": "No"}]},
    "textvqa": {"data/validation-0.parquet": [TEXTVQA], "data/test-0.parquet": [TEXTVQA]},
    "vizwiz": {"data/val-0.parquet": [VIZWIZ]},
    "gqa": {
        "testdev_balanced_instructions/testdev-0.parquet": [GQA],
        "testdev_balanced_images/testdev-0.parquet": [{"id": "n1", "image": picture(5)}],
    },
}


@pytest.fixture(autouse=True)
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of questions: the protocols count the real ones."""

    def uncounted(name: str) -> Protocol:
        return get_protocol(name).model_copy(update={"expected": None})

    monkeypatch.setattr(hub_rows, "get_protocol", uncounted)


def fetched(root: Path, benchmark: str) -> tuple[Path, Roots]:
    roots = Roots(data=root)
    folder = roots.resolve(folder_of(benchmark))
    for name, rows in ROWS[benchmark].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    return folder, roots


@pytest.mark.parametrize("benchmark", sorted(FORMS))
def test_rows_become_questions_with_their_images(tmp_path: Path, benchmark: str) -> None:
    folder, roots = fetched(tmp_path, benchmark)
    with pytest.raises(DataError, match=f"data unpack .* --benchmark {benchmark}` makes them"):
        read_data(benchmark, None, roots)
    path, questions, images = unpack_benchmark(benchmark, folder, folder)
    before = path.read_bytes()
    assert unpack_benchmark(benchmark, folder, folder)[0].read_bytes() == before
    found = read_data(benchmark, None, roots)
    assert len(found.questions) == questions and images == 1
    (name,) = {question.image for question in found.questions}
    assert [file.stem for file in (folder / "images").iterdir()] == [name]


def asked(root: Path, benchmark: str) -> list[Question]:
    folder, roots = fetched(root, benchmark)
    unpack_benchmark(benchmark, folder, folder)
    return [*read_data(benchmark, None, roots).questions]


def test_what_a_question_is(tmp_path: Path) -> None:
    first, second = asked(tmp_path, "mme")
    assert (first.id, second.id) == ("color/1.png", "color/1.png/2")
    assert (first.text, first.gold, first.category) == ("Is it red?", ("Yes",), "color")
    assert first.image == second.image == "color_1.png"
    (one,) = asked(tmp_path, "textvqa")
    assert (one.id, one.image, one.ocr_tokens) == ("5", "0a1b", ("STOP", "now"))
    assert len(one.gold) == 10
    whole, rotated = asked(tmp_path, "mmb")
    assert (whole.id, whole.rotation_of, rotated.rotation_of) == ("7", "7", "7")
    assert whole.options == ("red", "blue") and whole.hint is None and whole.gold == ("B",)
    (one,) = asked(tmp_path, "gqa")
    assert (one.id, one.image, one.category) == ("201", "n1", "verify")


@pytest.mark.parametrize(
    ("benchmark", "file", "rows", "message"),
    [
        ("mme", "test-0.parquet", [{"question": "?"}], "has no column `question_id`"),
        ("mme", "test-0.parquet", [{"question_id": "1", "image": None}], "row 0: no column `q"),
        ("vizwiz", "val-0.parquet", [{**VIZWIZ, "answers": None}], "row 0: gold: "),
        ("vizwiz", "val-0.parquet", [{**VIZWIZ, "image": "a.jpg"}], "the path a.jpg, and bytes"),
        ("textvqa", "validation-0.parquet", [{**TEXTVQA, "image_id": "../x"}], "no file's name"),
        ("vizwiz", "val-0.parquet", [{**VIZWIZ, "image": b"?"}], "image cannot be read"),
        ("vizwiz", "val-0.parquet", [{**VIZWIZ, "image": None}], "row 0: it has no `image`"),
        ("vizwiz", "val-0.parquet", [{**VIZWIZ, "question_id": None}], "row 0: its id or its q"),
        (
            "vizwiz",
            "val-0.parquet",
            [VIZWIZ, VIZWIZ],
            r"2 questions .* 1 id more than once \(val_1",
        ),
        ("textvqa", "validation-0.parquet", [WITHOUT_OCR], "row 0: no column `ocr_tokens`"),
        ("textvqa", "validation-0.parquet", [TEXTVQA, REPAINTED], "row 1: its image 0a1b is anoth"),
    ],
)
def test_another_form_is_refused(
    tmp_path: Path, benchmark: str, file: str, rows: list[dict[str, Any]], message: str
) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / file)
    with pytest.raises(DataError, match=message):
        unpack_benchmark(benchmark, tmp_path, tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.jsonl")]


def test_files_that_are_not_read_are_not_fetched_again(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path)
    folder = roots.resolve(folder_of("sqa")) / "data"
    with pytest.raises(DataError, match="`densekit fetch ScienceQA`"):
        read_data("sqa", None, roots)
    folder.mkdir(parents=True)
    (folder / "test-0.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"parquet files there are not read: write sqa\.jsonl"):
        read_data("sqa", None, roots)


def test_what_is_not_read_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MMMU's parquet files are not read"):
        unpack_benchmark("mmmu", tmp_path, tmp_path)
    with pytest.raises(UsageError, match=r"has no file \*\*/test-\*\.parquet"):
        unpack_benchmark("mme", tmp_path, tmp_path)
