"""The shapes data set: deterministic, whole or absent, and saying the truth about its pictures."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densekit.data.annotations import Annotations
from densekit.data.images import find_images
from densekit.errors import DataError, UsageError
from densekit.toy import dataset as shapes
from densekit.toy.dataset import make_shapes
from densekit.toy.pictures import COLOURS

SIZES = {"seed": 3, "stage1": 48, "stage2": 40, "held_out": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "set"
    make_shapes(folder, **SIZES)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / name).read_text(encoding="utf-8"))
    return entries


def test_two_directories_are_byte_identical_and_the_seed_matters(
    made: Path, tmp_path: Path
) -> None:
    make_shapes(tmp_path / "deep" / "again", **SIZES)
    assert _contents(tmp_path / "deep" / "again") == _contents(made)
    make_shapes(tmp_path / "other", **{**SIZES, "seed": 4})
    assert _contents(tmp_path / "other")["stage1.json"] != _contents(made)["stage1.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "other"]


def test_a_second_call_changes_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the data set was written again")

    monkeypatch.setattr(shapes, "_write", refuse)
    make_shapes(made, **SIZES)


def test_something_else_in_the_way_is_left_alone(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists and is not"):
        make_shapes(made, **{**SIZES, "stage1": 47})
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="exists and is not"):
        make_shapes(tmp_path, **SIZES)


def test_a_damaged_data_set_is_noticed(tmp_path: Path) -> None:
    make_shapes(tmp_path / "set", **SIZES)
    next((tmp_path / "set/images").iterdir()).write_bytes(b"")
    with pytest.raises(DataError, match="files differ"):
        make_shapes(tmp_path / "set", **SIZES)


def test_an_interrupted_call_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "dialogue_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "set", **SIZES)
    assert list(tmp_path.iterdir()) == []


def test_the_files_pass_the_kits_own_checks(made: Path) -> None:
    for name, size in (("stage1", 48), ("stage2", 40), ("held_out", 16)):
        annotations = Annotations.load(made / f"{name}.json", require_tag=True)
        assert len(annotations) == size
        assert find_images(annotations, made / "images").bad == ()
    assert sum("image" not in entry for entry in _read(made, "stage2.json")) == 6


def test_every_picture_is_used_once_and_none_is_shared_with_the_held_out_set(made: Path) -> None:
    files = ("stage1.json", "stage2.json", "held_out.json")
    used = [entry["image"] for name in files for entry in _read(made, name) if "image" in entry]
    assert sorted(used) == sorted(file.name for file in (made / "images").iterdir())


def test_pictures_vary_as_real_ones_do(made: Path) -> None:
    opened = [Image.open(file) for file in sorted((made / "images").iterdir())]
    assert {(image.format, image.mode) for image in opened} == {
        ("JPEG", "RGB"),
        ("PNG", "RGB"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
    }
    assert all(40 <= side <= 90 for image in opened for side in image.size)
    assert any(image.width != image.height for image in opened)


def test_the_held_out_answers_are_balanced(made: Path) -> None:
    entries = _read(made, "held_out.json")
    answers = Counter(
        (entry["question_kind"], entry["conversations"][1]["value"]) for entry in entries
    )
    assert len(answers) == 8
    assert set(answers.values()) == {2}
    assert all(len(entry["conversations"]) == 2 for entry in entries)


def test_the_named_colour_is_the_one_in_the_central_square(made: Path) -> None:
    for entry in _read(made, "stage1.json"):
        picture = Image.open(made / "images" / entry["image"]).convert("RGB")
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        pixels = (
            np.asarray(picture.crop((left, top, left + short, top + short)))
            .reshape(-1, 3)
            .astype(int)
        )
        shape = pixels[np.ptp(pixels, axis=1) > 90]
        assert len(shape) > 0.08 * len(pixels)
        distances = {
            name: np.abs(np.median(shape, axis=0) - colour).sum()
            for name, colour in COLOURS.items()
        }
        assert (
            min(distances, key=lambda name: distances[name]) in entry["conversations"][1]["value"]
        )


def test_yes_and_no_agree_with_the_other_answers(made: Path) -> None:
    seen = Counter[str]()
    for entry in _read(made, "stage2.json"):
        values = [turn["value"] for turn in entry["conversations"]]
        facts = {answer.lower() for answer in values[1::2]} - {"yes", "no"}
        for question, answer in zip(values[::2], values[1::2], strict=True):
            if answer in ("Yes", "No"):
                asked = question.rstrip("?").split()[-1]
                assert (asked in facts) == (answer == "Yes")
                seen[answer] += 1
    assert min(seen["Yes"], seen["No"]) > 0


def test_the_text_file_holds_every_training_conversation(made: Path) -> None:
    lines = (made / "text.txt").read_text(encoding="utf-8").splitlines()
    entries = [*_read(made, "stage1.json"), *_read(made, "stage2.json")]
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        assert line.startswith("USER: ")
        assert "<image>" not in line
        assert all(turn["value"] in line for turn in entry["conversations"][1::2])


@pytest.mark.parametrize("change", [{"seed": -1}, {"stage1": 0}, {"held_out": 12}])
def test_bad_sizes_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="multiple of 8"):
        make_shapes(tmp_path / "set", **{**SIZES, **change})
