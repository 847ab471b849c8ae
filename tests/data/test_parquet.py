"""Parquet files with image bytes, unpacked to what training reads."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from densekit.data.annotations import Annotations
from densekit.data.doctor.examine import Request, examine
from densekit.data.doctor.subject import Subject
from densekit.data.parquet import unpack
from densekit.errors import DataError, UsageError
from tests.support.command_line import Cli, caller
from tests.support.damaged_data import GRADIENT, JPEGS, turns

TALK = turns("<image>\nWhat is it?", "A ramp.")
MESSAGES = [
    {"role": "user", "content": "<image>\nWhat is it?"},
    {"role": "assistant", "content": "A ramp."},
]


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=1)


def image(number: int, path: str | None = None) -> dict[str, Any]:
    return {"bytes": JPEGS[number], "path": path}


def test_rows_become_entries_and_images(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    write(
        source / "a.parquet",
        {"id": 7, "image": image(0, "cat.png"), "conversations": TALK, "other": 1},
        {"id": None, "image": None, "conversations": turns("Why?", "So."), "other": 2},
    )
    write(source / "deep/b.parquet", {"images": [image(1)], "messages": MESSAGES})
    found = unpack(source, target)
    assert (found.entries, found.images) == (3, 2)
    entries = json.loads(found.annotations.read_text())
    assert entries == [
        {"id": "7", "image": "a/00000000.jpg", "conversations": TALK},
        {"id": "a/00000001", "conversations": turns("Why?", "So.")},
        {"id": "deep/b/00000000", "image": "deep/b/00000000.jpg", "conversations": TALK},
    ]
    assert (target / "images/deep/b/00000000.jpg").read_bytes() == JPEGS[1]
    assert len(Annotations.load(found.annotations)) == 3
    subject = Subject(name="x", annotations=found.annotations, images=target / "images")
    assert list(examine(subject, Request(depth="full"), tmp_path / "cache").findings) == []
    before = found.annotations.read_bytes()
    assert unpack(source, target) == found and found.annotations.read_bytes() == before
    assert sorted(path.name for path in target.iterdir()) == ["annotations.json", "images"]


def test_bare_bytes_paths_and_one_file(tmp_path: Path) -> None:
    path = tmp_path / "only.parquet"
    write(path, {"image": JPEGS[2], "conversations": TALK})
    assert json.loads(unpack(path, tmp_path / "a").annotations.read_text())[0]["image"] == (
        "only/00000000.jpg"
    )
    write(path, {"image": "coco/1.jpg", "conversations": TALK})
    assert json.loads(unpack(path, tmp_path / "b").annotations.read_text())[0]["image"] == (
        "coco/1.jpg"
    )


def test_columns_that_other_programs_learn_from_are_refused(tmp_path: Path) -> None:
    both = {"image": image(0), "images": [image(1)], "conversations": TALK}
    path = {"bytes": None, "path": "a.png"}
    for number, (row, said) in enumerate(
        (
            ({"image": image(0), "conversations": TALK, "system": "Be kind."}, "'system' holds a"),
            ({"image": image(0), "conversations": TALK, "video": b"mp4"}, "'video' is not support"),
            ({"image": image(0), "conversations": TALK, "tools": "[]"}, "'tools' are not shown"),
            ({"image": image(0), "conversations": json.dumps(TALK)}, "'conversations' is a string"),
            (both, "both `image` and `images`"),
            ({"image": {"bytes": b"", "path": "a.png"}, "conversations": TALK}, "0 bytes"),
        )
    ):
        write(tmp_path / f"{number}.parquet", row)
        with pytest.raises(DataError, match=said):
            unpack(tmp_path / f"{number}.parquet", tmp_path / "out")
    rows = [{"image": each, "conversations": TALK, "system": ""} for each in (image(0), path)]
    write(tmp_path / "good.parquet", *rows)
    found = unpack(tmp_path / "good.parquet", tmp_path / "out")
    assert (found.entries, found.images, found.elsewhere) == (2, 1, 1)


@pytest.mark.timeout(20)
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a regular file"):
        unpack(tmp_path, tmp_path / "out")


def test_images_are_named_after_what_they_are(tmp_path: Path) -> None:
    GRADIENT.save(tmp_path / "x.png")
    row = {"image": {"bytes": (tmp_path / "x.png").read_bytes()}, "conversations": TALK}
    write(tmp_path / "a.parquet", row)
    unpack(tmp_path / "a.parquet", tmp_path / "out")
    assert (tmp_path / "out/images/a/00000000.png").is_file()


def test_parts_of_messages(tmp_path: Path) -> None:
    """A column has one type: the fields of other parts are null."""
    parts = [
        {"type": "image", "text": None},
        {"type": "text", "text": "What is it?"},
    ]
    answer = [{"type": "text", "text": "A ramp."}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    write(tmp_path / "a.parquet", {"images": [image(3)], "messages": messages})
    (entry,) = json.loads(unpack(tmp_path / "a.parquet", tmp_path / "out").annotations.read_text())
    assert entry["conversations"] == TALK


def test_what_is_refused_is_named_by_file_and_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"images": [image(0)], "conversations": TALK},
        {"images": [image(0), image(1)], "conversations": TALK},
        {"images": [{"bytes": b"<html>", "path": None}], "conversations": TALK},
        {"images": [], "conversations": TALK},
        {"images": [image(0)], "conversations": []},
    ]
    write(tmp_path / "a.parquet", *rows)
    with pytest.raises(DataError) as caught:
        unpack(tmp_path, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert "4 rows are refused" in lines[0]
    assert [line.split(": ")[0] for line in lines[1:]] == [
        f"  - a/0000000{number}" for number in (1, 2, 3, 4)
    ]
    for words in ("2 images; one image", "not an image", "tag without an image", "no 'conv"):
        assert words in str(caught.value), words
    assert not (tmp_path / "out/annotations.json").exists()


def test_files_that_are_no_such_parquet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none is missing; give a folder of parquet files"):
        unpack(tmp_path / "none", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file; give a folder to put annotations"):
        unpack(tmp_path, tmp_path / "file")
    with pytest.raises(UsageError, match=r"holds no \.parquet file"):
        unpack(tmp_path, tmp_path / "out")
    write(tmp_path / "a.parquet", {"text": "x", "label": 1})
    with pytest.raises(DataError, match="no column `conversations` or `messages`; it has text"):
        unpack(tmp_path, tmp_path / "out")
    (tmp_path / "a.parquet").write_bytes(b"<html>")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        unpack(tmp_path, tmp_path / "out")


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in/a.parquet", {"image": image(0), "conversations": TALK})
    call: Cli = caller(monkeypatch, capsys)
    found = call("data", "unpack", "in", "--to", "out")
    assert found.code == 0 and "1 entry, 1 image" in found.out
    refused = call("data", "verify", "in")
    assert refused.code == 2 and "`densekit data unpack in --to DIR`" in refused.err
