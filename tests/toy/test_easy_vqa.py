"""easy-vqa 1.0 as data set and benchmark: what its files become, on a small package of its form."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densekit.data.annotations import Annotations
from densekit.data.catalog import data_set_of, data_sets
from densekit.errors import DataError
from densekit.evaluate.data import question_file, read_data
from densekit.evaluate.protocols import get_protocol, prompts
from densekit.evaluate.questions import check_counts
from densekit.files.hashing import file_sha256
from densekit.spec.roots import Roots
from densekit.toy import easy_vqa
from densekit.toy.easy_vqa import Asked, caption_of, conversation_of, make_benchmark, make_training

ROWS = [
    ["what is the blue shape?", "rectangle", 0],
    ["is there a red shape?", "no", 0],
    ["is there not a triangle?", "yes", 0],
    ["does the image contain a circle?", "yes", 1],
    ["is a teal shape present?", "no", 2],
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a package with three images in both parts."""
    for part in ("TRAIN", "TEST"):
        folder = tmp_path / "package" / part.lower()
        (folder / "images").mkdir(parents=True)
        for image in range(3):
            (folder / "images" / f"{image}.png").write_bytes(bytes([image]))
        (folder / "questions.json").write_text(json.dumps(ROWS))
        known = replace(getattr(easy_vqa, part), sha256=file_sha256(folder / "questions.json"))
        monkeypatch.setattr(easy_vqa, part, known)
    return tmp_path / "package"


@pytest.mark.parametrize(
    ("questions", "caption"),
    [
        ([("what is the blue shape?", "rectangle")], "a blue rectangle"),
        ([("what color is the circle?", "red")], "a red circle"),
        ([("what color is the shape?", "gray")], "a gray shape"),
        ([("is there a triangle?", "yes")], "a triangle"),
        ([("is there a triangle?", "no")], None),
        ([("is there not a triangle in the image?", "no")], "a triangle"),
        ([("is no teal shape present?", "no"), ("is a circle present?", "yes")], "a teal circle"),
        ([("is no teal shape present?", "yes")], None),
    ],
)
def test_a_caption_says_what_the_answers_say(
    questions: list[tuple[str, str]], caption: str | None
) -> None:
    entry = caption_of(7, [Asked(text, answer, 7) for text, answer in questions])
    found = entry and entry["conversations"][1]["value"]
    assert found == caption


def test_a_conversation_has_every_question_of_its_image() -> None:
    entry = conversation_of(0, [Asked(*row) for row in ROWS[:3]])
    values = [turn["value"] for turn in entry["conversations"]]
    assert values == [
        f"<image>\nwhat is the blue shape?{prompts.SHORT}",
        "rectangle",
        "is there a red shape?",
        "no",
        "is there not a triangle?",
        "yes",
    ]
    assert entry["image"] == "0.png"


def test_the_training_data_is_an_annotation_file(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    make_training(package, folder)
    for stage, count in ((1, 2), (2, 3)):
        samples = [*Annotations.load(folder / f"easy_vqa_stage{stage}.json")]
        assert len(samples) == count, "of image 2 nothing is said"
        assert all((folder / "images" / str(sample.image)).is_file() for sample in samples)
    assert len((folder / "text.txt").read_text().splitlines()) == 3
    before = (folder / "text.txt").stat().st_mtime_ns
    make_training(package, folder)
    assert (folder / "text.txt").stat().st_mtime_ns == before, "made once"


def test_the_benchmark_is_asked_by_its_protocols(package: Path, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path)
    make_benchmark(package, tmp_path / "benchmarks" / "easy-vqa")
    assert question_file("easy_vqa_yes_no", roots) == question_file("easy_vqa", roots)
    every = read_data("easy_vqa", None, roots)
    assert [question.id for question in every.questions] == ["0/0", "0/1", "0/2", "1/0", "2/0"]
    assert every.questions[0].gold == ("rectangle",) and every.questions[0].image == "0"
    some = read_data("easy_vqa_yes_no", None, roots)
    assert [question.id for question in some.questions] == ["0/1", "0/2", "1/0", "2/0"]
    assert {question.category for question in some.questions} == {"yes_no"}
    with pytest.raises(DataError, match=r"easy-VQA has 9,673 questions on 1,000 images"):
        check_counts(every.protocol, every.questions)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("rows", "has SHA-256 .*, and version 1.0 has "),
        ("image", r"1\.png is missing: `make easy-vqa`"),
        ("questions", r"questions\.json is missing: `make easy-vqa`"),
        ("other", "is there and was not made from easy-vqa 1.0"),
    ],
)
def test_another_package_or_folder_is_refused(
    package: Path, tmp_path: Path, damage: str, message: str
) -> None:
    folder = tmp_path / "data"
    if damage == "rows":
        (package / "train" / "questions.json").write_text("[]")
    elif damage == "image":
        (package / "train" / "images" / "1.png").unlink()
    elif damage == "questions":
        (package / "train" / "questions.json").unlink()
    else:
        folder.mkdir()
    with pytest.raises(DataError, match=message):
        make_training(package, folder)
    assert folder.exists() == (damage == "other")
    assert not [*tmp_path.glob(".data-*")]


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nowhere)
    with pytest.raises(DataError, match="is not installed: `make easy-vqa`"):
        easy_vqa.package_folder()


def test_the_catalogue_says_how_to_get_it() -> None:
    names = {"easy-VQA-captions", "easy-VQA-conversations", "easy-VQA"}
    found = {each.name: each for each in data_sets() if each.name in names}
    assert found.keys() == names
    assert all("make easy-vqa" in str(f.by_hand) for d in found.values() for f in d.distribution)
    for recipe, name in ((1, "easy-VQA-captions"), (2, "easy-VQA-conversations")):
        data_set = data_set_of(f"data:easy-vqa/easy_vqa_stage{recipe}.json")
        assert data_set is not None and data_set.name == name


def test_questions_end_as_the_protocol_says() -> None:
    assert f"\n{easy_vqa.SHORT}" == get_protocol("easy_vqa").suffix == prompts.SHORT
    assert get_protocol("easy_vqa").decoding.batch_size == 64
