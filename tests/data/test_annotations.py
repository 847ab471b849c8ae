"""Annotation files: what is read, and how each mistake is named."""

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from densekit.data.annotations import Annotations
from densekit.errors import DataError

HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
PLAIN = {"from": "human", "value": "What is it?"}
GPT = {"from": "gpt", "value": "A cat."}


def _entry(*turns: Any, **fields: Any) -> dict[str, Any]:
    return {"conversations": list(turns), **fields}


GOOD = _entry(HUMAN, GPT, image="a.png", id="x")


def _write(folder: Path, data: Any) -> Path:
    path = folder / "train.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    path = _write(tmp_path, [GOOD, {**GOOD, "id": 7}, _entry(PLAIN, GPT)])
    annotations = Annotations.load(path)
    assert len(annotations) == 3
    assert annotations.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [sample.entry_id for sample in annotations] == ["x", "7", None]
    assert [sample.image for sample in annotations[:]] == ["a.png", "a.png", None]
    assert annotations[0].conversations == [HUMAN, GPT]
    assert annotations[-1].index == 2
    with pytest.raises(IndexError):
        annotations[3]


def test_the_sample_id_follows_the_content_and_not_the_spelling(tmp_path: Path) -> None:
    turned = dict(reversed(GOOD.items()))
    first, second, other = Annotations.load(_write(tmp_path, [GOOD, turned, {**GOOD, "id": "y"}]))
    canonical = json.dumps(GOOD, sort_keys=True, separators=(",", ":"))
    assert first.sample_id == "0:" + hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert second.sample_id == "1:" + first.sample_id[2:]
    assert other.sample_id[2:] != first.sample_id[2:]


LEGAL = {
    "leading gpt turn": _entry(GPT, PLAIN, GPT),
    "trailing human turn": _entry(PLAIN, GPT, PLAIN),
    "two tags in one turn": _entry(
        {"from": "human", "value": "<image><image>?"}, GPT, image="a.png"
    ),
    "image without tag": _entry(PLAIN, GPT, image="a.png"),
    "lone surrogate": _entry({"from": "human", "value": "\ud83d"}, GPT),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_entries(tmp_path: Path, name: str) -> None:
    annotations = Annotations.load(_write(tmp_path, [LEGAL[name]]))
    assert annotations[0].sample_id.startswith("0:")
    assert annotations.untagged.tolist() == [name == "image without tag"]


REFUSED = {
    "not an object": ("text", "is a string"),
    "no conversations": ({"id": "x"}, "no 'conversations'"),
    "empty conversations": (_entry(), "no 'conversations'"),
    "no from": (_entry({"value": "x"}), "turn 0 has no 'from'"),
    "no value": (_entry(PLAIN, {"from": "gpt"}), "turn 1 has no 'value'"),
    "value not text": (_entry(PLAIN, {"from": "gpt", "value": 3}), "turn 1 has no 'value'"),
    "unknown speaker": (_entry(PLAIN, {"from": "bot", "value": "x"}), "turn 1 is from 'bot'"),
    "two human turns": (_entry(PLAIN, PLAIN, GPT), "turn 1 is from 'human'"),
    "two gpt turns first": (_entry(GPT, GPT), "turn 1 is from 'gpt'"),
    "only a gpt turn": (_entry(GPT), "single gpt turn"),
    "tag without image": (_entry(HUMAN, GPT), "tag without an image"),
    "tags in two turns": (_entry(HUMAN, GPT, HUMAN, GPT, image="a.png"), "in 2 turns"),
    "a video": (_entry(HUMAN, GPT, video="a.mp4"), "'video' is not supported"),
    "list of images": (_entry(HUMAN, GPT, image=["a.png", "b.png"]), "'image' is a list of 2"),
    "empty list of images": (_entry(HUMAN, GPT, image=[]), "'image' is a list of 0"),
    "NUL in the image": (_entry(HUMAN, GPT, image="a\0.png"), "not a file name"),
    "message without content": ({"messages": [{"role": "user"}]}, "turn 0 has no 'content'"),
    "system message": (
        {"messages": [{"role": "system", "content": "x"}]},
        "turn 0 is from 'system': the",
    ),
    "no messages": ({"messages": []}, "no 'conversations'"),
    "list of videos": (_entry(HUMAN, GPT, videos=["a.mp4"]), "'videos' is not supported"),
    "system turn": (
        _entry({"from": "system", "value": "x"}, PLAIN, GPT),
        "turn 0 is from 'system': the",
    ),
    "null image": (_entry(HUMAN, GPT, image=None), "not a file name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_entry_is_refused_with_file_and_index(tmp_path: Path, name: str) -> None:
    entry, message = REFUSED[name]
    path = _write(tmp_path, [GOOD, entry])
    with pytest.raises(DataError) as caught:
        Annotations.load(path)
    assert str(caught.value).startswith(f"{path}: entry 1: ")
    assert message in str(caught.value)


def test_a_tag_inside_a_text_only_sentence_is_text(tmp_path: Path) -> None:
    question = {"from": "human", "value": "What does <image> mean in HTML?"}
    assert Annotations.load(_write(tmp_path, [_entry(question, GPT)]))[0].image is None


def test_a_tag_can_be_required(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="entry 0: image without a <image> tag"):
        Annotations.load(_write(tmp_path, [LEGAL["image without tag"]]), require_tag=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n {"a": 1},\n {"b" 2}]', "line 3, column 7: broken JSON"),
        ("", "the file is empty"),
        ('{"data": [{"id": 1}]}', "a list of entries is needed: the list under 'data' alone"),
        ('"text"', "holds a string"),
        (
            '[{"conversations": []}',
            "line 1, column 23: broken JSON (Expecting ',' delimiter); the file may be cut off",
        ),
        ("version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
        ("<!DOCTYPE html><html>", "is a web page"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("[1" + "0" * 5000 + "]", "an integer of 5001 digits"),
        ("[]", "the list is empty"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        Annotations.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            gzip.compress(b"[]", mtime=0),
            "is a gzip file, not JSON; unpack it, and give the JSON file in it",
        ),
        (b"PK\x03\x04" + bytes(50), "is a zip archive, not JSON; unpack it"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 50, "is a zstd file, not JSON"),
        (b"PAR1" + bytes(50), "is a parquet file, not JSON; `densekit data unpack FILE --to DIR`"),
        (b"%PDF-1.7", "is a PDF document, not JSON; download the file itself"),
        (bytes(5000), "is zeros, not JSON; download"),
        (b"\xff\xd8\xff\xe0" * 9, "byte 0: not valid UTF-8"),
    ],
    ids=["gzip", "zip", "zstd", "parquet", "PDF", "zeros", "JPEG"],
)
def test_what_stands_in_place_of_a_file_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        Annotations.load(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    "form", ["{}\n{}", "{}\n\n{}\n", "[{}]\n[{}]", "[{}], [{}]", "\ufeff[{}, {}]"]
)
def test_other_forms_of_the_same_entries_are_read(tmp_path: Path, form: str) -> None:
    """JSON Lines, several lists, a byte order mark: the sample ids are those of the list."""
    other = {**GOOD, "image": "b.png"}
    listed = [sample.sample_id for sample in Annotations.load(_write(tmp_path, [GOOD, other]))]
    read = Annotations.load(
        _write(tmp_path, form.replace("{}", "%s") % tuple(map(json.dumps, (GOOD, other))))
    )
    assert [sample.sample_id for sample in read] == listed
    assert list(read.images()) == [(0, "a.png"), (1, "b.png")]


def test_a_list_of_one_image_is_read(tmp_path: Path) -> None:
    (sample,) = annotations = Annotations.load(_write(tmp_path, [{**GOOD, "image": ["a.png"]}]))
    assert sample.image == "a.png" and list(annotations.images()) == [(0, "a.png")]


def test_a_broken_line_of_json_lines_is_named(tmp_path: Path) -> None:
    text = f'{json.dumps(GOOD)}\n{{"id": nope}}\n{json.dumps(GOOD)}'
    with pytest.raises(DataError, match=r"line 2, column 8: broken JSON .*; correct it there"):
        Annotations.load(_write(tmp_path, text))


def test_all_refused_entries_are_counted(tmp_path: Path) -> None:
    bad = [_entry(), GOOD, *[_entry()] * 12]
    with pytest.raises(
        DataError,
        match=r"entry 0: no 'conversations'.* \(12 more entries are refused: 2, 3, .* 11, \.\.\.\)",
    ):
        Annotations.load(_write(tmp_path, bad))


@pytest.mark.parametrize("path", ["/dev/zero", "fifo", "folder", "nul\0"])
def test_only_a_regular_annotation_file_is_read(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"cannot be read: it is|is not a path"):
        Annotations.load(tmp_path / path)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.json is missing"):
        Annotations.load(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(DataError, match="byte 2: not valid UTF-8"):
        Annotations.load(tmp_path / "latin.json")
