"""JSON files: read within bounds, refused with a sentence, replaced whole."""

import os
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.files import json_files
from densekit.files.json_files import (
    optional_object,
    read_json,
    read_jsonl,
    read_object,
    write_json,
)

REFUSED = {
    "cut off": (b'{\n"a": [1,', r"Expecting value at line 2, column 9"),
    "empty": (b"", "Expecting value at column 1"),
    "not UTF-8": (b'{"a": "\xff"}', r"not UTF-8 \(byte 7\)"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "closed nesting": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "nested below the interpreter's own limit": (b"[" * 110 + b"]" * 110, "nested too deeply"),
    "long integer": (b'{"a": 1' + b"0" * 5000 + b"}", "an integer of 5001 digits"),
    "integer beyond a float": (b"1" + b"0" * 309, "an integer of 310 digits"),
    "float beyond a float": (b"[1e999]", "the number 1e999 is too large"),
    "byte order mark": (b"\xef\xbb\xbf{}", "begins with a byte order mark: save it as UTF-8"),
    "NaN": (b'{"a": NaN}', "NaN is not a JSON number"),
    "Infinity": (b"[-Infinity]", "-Infinity is not a JSON number"),
    "lone surrogate": (rb'{"a": "\ud800"}', "half of a surrogate pair"),
    "lone surrogate as a key": (rb'{"\udc00": 1}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_json_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        DataError, match=rf"a\.json cannot be read: .*{reason}.*; download it again"
    ):
        read_json(tmp_path / "a.json", remedy="download it again")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """None of these may block or never end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, reason in (
        (tmp_path / "fifo", "fifo cannot be read: it is not a regular file"),
        (Path("/dev/zero"), "/dev/zero cannot be read: it is not a regular file"),
        (tmp_path / "folder", "folder cannot be read: it is a folder"),
        (tmp_path / "dangling", "dangling is missing"),
        (tmp_path / "missing", "missing is missing; put the original file back"),
        (tmp_path / "nul\0", "is not a path"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        for read in (read_json, read_object, read_jsonl):
            with pytest.raises(DataError, match=reason):
                read(path)


def test_a_large_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_BYTES", 1 << 20)
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(DataError, match=r"a\.json is larger than 1 MiB"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json: line 1 is not a JSON object"):
        read_jsonl(tmp_path / "a.json")


def test_what_tokenizers_and_texts_hold_is_read(tmp_path: Path) -> None:
    value = {"model_max_length": int(1e30), "é": "\U0001f600", "n": -1.5e300, "z": None}
    (tmp_path / "a.json").write_text(
        '{"model_max_length": 1000000000000000019884624838656, "\\u00e9": "\\ud83d\\ude00",'
        ' "n": -1.5e300, "z": null}'
    )
    assert read_json(tmp_path / "a.json") == value


def test_an_object_needs_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_object(tmp_path / "a.json", "a") == {"a": 1}
    with pytest.raises(DataError, match=r"a\.json has no `b`, `c`; put the original file back"):
        read_object(tmp_path / "a.json", "a", "b", "c")
    write_json(tmp_path / "list.json", [1])
    with pytest.raises(DataError, match=r"list\.json must hold a JSON object"):
        read_object(tmp_path / "list.json")


def test_an_optional_object_may_only_be_absent(tmp_path: Path) -> None:
    assert optional_object(tmp_path / "a.json") == {}
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "dangling"):
        with pytest.raises(DataError, match=name):
            optional_object(tmp_path / name)


@pytest.mark.parametrize(
    "line", ["[1]", '{"b"', "", rb'{"a": "\ud800"}'.decode(), "[" * 100_000, '{"a": 1}{"a": 1}']
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"a": 1}}\n{line}\n{{}}\n')
    with pytest.raises(DataError, match=r"x\.jsonl: line 2 is not a JSON object \(.*\): the file"):
        read_jsonl(tmp_path / "x.jsonl")


def test_metrics_of_a_diverged_run_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"grad_norm": Infinity}\n{"text": "\\u2028"}\r\n{"a": 1}')
    records = read_jsonl(tmp_path / "x.jsonl")
    assert records == [{"grad_norm": float("inf")}, {"text": "\u2028"}, {"a": 1}]


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "é": [\n  1\n ]\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"é": [1]}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
