"""Counts of tokens and labels: kept, shared, and never believed when damaged."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.data import token_counts
from densekit.data.token_counts import NOTES, Counted, TokenCounts, counting_key

KEY: dict[str, Any] = {"annotations": "x"}


def _counted(tokens: int = 5, labels: int = 2, *notes: str) -> Counted:
    return Counted(tokens=tokens, labels=labels, notes=notes)


SIZES = st.integers(0, (1 << 22) - 1)


@given(SIZES, SIZES, st.sets(st.sampled_from(NOTES)), st.integers(0, 2))
def test_what_is_put_comes_back_and_nothing_else(
    tokens: int, labels: int, notes: set[str], place: int
) -> None:
    counts = TokenCounts(Path("none"), np.zeros(3, dtype=np.uint64))
    counted = _counted(tokens, labels, *sorted(notes, key=NOTES.index))
    counts.put(place, counted)
    found = [counts.get(other) for other in range(3)]
    assert found.pop(place) == counted and found == [None, None]
    assert counts.missing() == [other for other in range(3) if other != place]


def test_more_than_a_record_holds_is_not_kept() -> None:
    counts = TokenCounts(Path("none"), np.zeros(1, dtype=np.uint64))
    counts.put(0, _counted(1 << 22))
    assert counts.get(0) is None


def test_another_process_sees_them(tmp_path: Path) -> None:
    mine = TokenCounts.open(tmp_path, KEY, 3)
    other, handed = TokenCounts.open(tmp_path, KEY, 3), pickle.loads(pickle.dumps(mine))
    mine.put(1, _counted())
    for counts in (other, handed, TokenCounts.open(tmp_path, KEY, 3)):
        assert counts.get(1) == _counted() and counts.get(0) is None
    assert TokenCounts.open(tmp_path, {"annotations": "y"}, 3).get(1) is None
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".npy", ".npy"]


def test_a_damaged_record_counts_as_none() -> None:
    records = np.zeros(1, dtype=np.uint64)
    counts = TokenCounts(Path("none"), records)
    for bit in range(64):
        counts.put(0, _counted(1000, 99, "truncated"))
        records ^= np.uint64(1 << bit)
        assert counts.get(0) is None, bit


@pytest.mark.parametrize("damage", ["cut", "other", "not writable"])
def test_a_file_that_cannot_be_used_is_said(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = TokenCounts.open(tmp_path, KEY, 3).path
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "other":
        np.save(path, np.zeros(4, dtype=np.uint64))
    else:
        shutil.rmtree(tmp_path / "tokens")
        (tmp_path / "tokens").touch()
    counts = TokenCounts.open(tmp_path, KEY, 3)
    counts.put(0, _counted())
    assert counts.get(0) == _counted()
    assert "every rank counts tokens itself" in capsys.readouterr().err


def test_the_key_holds_everything_that_a_count_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**changes: Any) -> str:
        given: dict[str, Any] = {
            "annotations_sha256": "a",
            "tokenizer": tmp_path,
            "template": "v1",
            "semantics": "faithful",
            "max_length": 2048,
            "image_tokens": 576,
        }
        return repr(counting_key(**{**given, **changes}))

    (tmp_path / "tokenizer.model").write_bytes(b"a")
    keys = [
        key(),
        key(annotations_sha256="b"),
        key(template="plain"),
        key(semantics="fixed"),
        key(max_length=99),
        key(image_tokens=729),
    ]
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"b")
        keys.append(key())
    monkeypatch.setattr(token_counts, "text_source_sha256", lambda: "other code")
    keys.append(key())
    monkeypatch.setattr(token_counts, "version", lambda name: "0")
    keys.append(key())
    assert len(set(keys)) == len(keys)
