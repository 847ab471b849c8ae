"""Images of an annotation file: all bad ones are found, and a header is read once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from densekit.data import images
from densekit.data.annotations import Annotations
from densekit.data.images import find_images


def _annotations(folder: Path, *names: str) -> Annotations:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A cat."}]
    text = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "A cat."}]
    entries = [{"conversations": text}]
    entries += [{"image": name, "conversations": turns} for name in names]  # type: ignore[list-item]
    path = folder / "train.json"
    path.write_text(json.dumps(entries))
    return Annotations.load(path)


def _picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4)).save(path)
    return path


def _reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []

    def examine(path: Path) -> Any:
        read.append(path.name)
        return real(path)

    real = images.examine
    monkeypatch.setattr(images, "examine", examine)
    return read


def test_all_bad_images_are_found_with_entry_and_reason(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    _picture(folder / "coco/1.jpg")
    (folder / "coco/empty.jpg").touch()
    (folder / "coco/page.jpg").write_text("<html>")
    (folder / "coco/cut.jpg").write_bytes((folder / "coco/1.jpg").read_bytes()[:12])
    (folder / "coco/sub").mkdir()
    os.mkfifo(folder / "fifo.jpg")
    (folder / "coco/0.jpg").symlink_to("0.jpg")  # the files beside it are there
    names = ["coco/1.jpg", "coco/empty.jpg", "coco/page.jpg", "gqa/1.jpg", "coco/sub", "fifo.jpg"]
    found = find_images(_annotations(tmp_path, *names, "coco/cut.jpg"), folder)
    reasons = [(bad.index, bad.reason.partition(" (")[0]) for bad in found.bad]
    assert reasons == [
        (2, "is empty"),
        (3, "cannot be read"),
        (4, "does not exist"),
        (5, "does not exist"),
        (6, "does not exist"),
        (7, "cannot be read"),
    ]
    assert found.outside == () and found.deep == ()


def test_headers_are_read_once_and_again_only_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    for name in ("a.png", "b.png"):
        _picture(folder / name)
    (folder / "bad.png").write_text("x")
    annotations = _annotations(tmp_path, "a.png", "b.png", "a.png", "bad.png")
    read = _reads(monkeypatch)
    assert [bad.index for bad in find_images(annotations, folder, cache).bad] == [4]
    assert sorted(read) == ["a.png", "b.png", "bad.png"]
    read.clear()
    assert [bad.index for bad in find_images(annotations, folder, cache).bad] == [4]
    assert read == ["bad.png"], "what is bad may be mended"
    read.clear()
    os.utime(_picture(folder / "bad.png"), ns=(1, 1))
    os.utime(folder / "a.png", ns=(1, 1))
    assert find_images(annotations, folder, cache).bad == ()
    assert sorted(read) == ["a.png", "bad.png"]


def test_a_damaged_memory_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    _picture(folder / "a.png")
    annotations = _annotations(tmp_path, "a.png")
    find_images(annotations, folder, cache)
    (kept,) = (cache / "images").iterdir()
    kept.write_bytes(b"x")
    assert find_images(annotations, folder, cache).bad == ()
    assert "the images are read again" in capsys.readouterr().err


def test_images_elsewhere_are_noticed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    _picture(elsewhere / "a.png")
    _picture(folder / "sub/b.png")
    (folder / "link").symlink_to(elsewhere)
    (folder / "c.png").symlink_to(elsewhere / "a.png")
    for name in (f"{elsewhere}/a.png", "../elsewhere/a.png", "link/a.png", "c.png"):
        found = find_images(_annotations(tmp_path, name, "sub/b.png"), folder)
        assert found.bad == () and found.outside == (elsewhere,), name
    (folder / "c.png").unlink()
    found = find_images(_annotations(tmp_path, "sub/b.png", "sub/../sub/b.png"), folder)
    assert found.outside == ()


def test_more_than_8_bits_a_channel_are_noticed(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", "I;16")
    _picture(tmp_path / "b.tiff", "F")
    _picture(tmp_path / "c.png")
    found = find_images(_annotations(tmp_path, "a.png", "b.tiff", "c.png"), tmp_path)
    assert found.deep == (1, 2)
