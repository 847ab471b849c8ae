"""Hashes: one spelling for a value, whatever order it was written in."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.files.hashing import canonical_json, file_sha256, files_sha256, json_sha256

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\n")
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé"), inner)
)


def test_hashed_json_has_sorted_keys_no_spaces_and_utf8() -> None:
    assert (
        canonical_json({"b": [1, 2.0, None], "a": {"é": True}})
        == '{"a":{"é":true},"b":[1,2.0,null]}'.encode()
    )
    assert json_sha256({}) == hashlib.sha256(b"{}").hexdigest()


@given(JSON)
def test_a_value_read_back_or_turned_around_has_the_same_spelling(value: object) -> None:
    assert canonical_json(json.loads(json.dumps(value))) == canonical_json(value)
    if isinstance(value, dict):
        assert json_sha256(dict(reversed(value.items()))) == json_sha256(value)


def test_different_values_have_different_hashes() -> None:
    values = [{}, [], None, 0, False, "", "0", {"a": None}, {"a": []}, [[]], [0, 1], [1, 0]]
    assert len({json_sha256(value) for value in values}) == len(values)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "missing"])
def test_what_is_no_regular_file_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match=r"regular file|Is a directory|No such file"):
        file_sha256(path)


def test_file_hashes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "b").write_bytes(data)
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c").write_bytes(b"c")
    assert file_sha256(tmp_path / "b") == hashlib.sha256(data).hexdigest()
    assert files_sha256(tmp_path) == {
        "a": hashlib.sha256(b"").hexdigest(),
        "b": hashlib.sha256(data).hexdigest(),
    }
    assert list(files_sha256(tmp_path)) == ["a", "b"]
