"""The sample index: what it measures, and that its cache is used, and never trusted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densekit.data import index as module
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex, load_index
from densekit.errors import DataError


def _entry(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        **fields,
    }


ENTRIES = [
    _entry("<image>\nWhat is it?", "A cat.", image="a.png", id="x"),
    _entry("Why so?", "Because  it\nis.", id="x"),
    _entry("<image>", "Red", image="b.png", id="y"),
]


def _load(folder: Path, entries: list[dict[str, Any]]) -> Annotations:
    (folder / "train.json").write_text(json.dumps(entries), encoding="utf-8")
    return Annotations.load(folder / "train.json")


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return _load(tmp_path, ENTRIES)


@pytest.fixture
def cached(annotations: Annotations, tmp_path: Path) -> Path:
    """The cache file of `annotations`, made."""
    load_index(annotations, tmp_path)
    return tmp_path / "index" / f"{annotations.sha256}.npz"


def _same(ours: SampleIndex, theirs: SampleIndex) -> bool:
    return (
        ours.annotations_sha256 == theirs.annotations_sha256
        and ours.modality_lengths.dtype == theirs.modality_lengths.dtype == np.int64
        and ours.digests.dtype == theirs.digests.dtype == np.uint64
        and np.array_equal(ours.modality_lengths, theirs.modality_lengths)
        and np.array_equal(ours.digests, theirs.digests)
    )


def test_an_index_holds_words_and_ids(annotations: Annotations) -> None:
    index = SampleIndex.of(annotations)
    assert index.annotations_sha256 == annotations.sha256
    assert index.modality_lengths.tolist() == [6, -5, 2]
    assert index.sample_ids() == [sample.sample_id for sample in annotations]


def test_ids_keep_the_zeros_in_front() -> None:
    digests = np.array([0, 255, 2**64 - 1], dtype=np.uint64)
    index = SampleIndex(
        annotations_sha256="", modality_lengths=np.ones(3, dtype=np.int64), digests=digests
    )
    assert index.sample_ids() == ["0:0000000000000000", "1:00000000000000ff", "2:ffffffffffffffff"]


def test_a_conversation_without_words_is_refused_with_file_sample_and_id(tmp_path: Path) -> None:
    annotations = _load(tmp_path, [*ENTRIES, _entry(" ", "\n", id="z")])
    with pytest.raises(
        DataError, match=r"train\.json: sample 3 \(id z\): the conversation has no words"
    ):
        SampleIndex.of(annotations)


def test_what_is_read_is_what_was_measured(
    cached: Path, annotations: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = SampleIndex.of(annotations)
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    monkeypatch.delattr(SampleIndex, "of")
    assert _same(load_index(annotations, tmp_path), measured)


def test_another_file_has_another_index(cached: Path, tmp_path: Path) -> None:
    other = load_index(_load(tmp_path, ENTRIES[1:]), tmp_path)
    assert other.modality_lengths.tolist() == [-5, 2]
    assert len(list(cached.parent.iterdir())) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(np.int64(6).tobytes())] ^= 1
    path.write_bytes(bytes(data))


def _store(**changes: Any) -> Any:
    arrays = {
        "schema": module.SCHEMA,
        "modality_lengths": np.array([6, -5, 2]),
        "digests": np.zeros(3, dtype=np.uint64),
        **changes,
    }
    return lambda path: np.savez(
        path, **{name: array for name, array in arrays.items() if array is not None}
    )


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"hello"),
    "cut off": _cut,
    "a bit flipped": _flip,
    "an array missing": _store(digests=None),
    "too few samples": _store(modality_lengths=np.array([6])),
    "other digests": _store(digests=np.zeros(3, dtype=np.int64)),
    "other numbers": _store(modality_lengths=np.array([6.0, -5.0, 2.0])),
    "another schema": _store(schema=module.SCHEMA + 1),
    "objects": _store(digests=np.array([None] * 3)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_made_anew_and_said(
    cached: Path,
    annotations: Annotations,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    DAMAGE[name](cached)
    assert _same(load_index(annotations, tmp_path), SampleIndex.of(annotations))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{cached}: damaged (") and told.err.count("\n") == 1
    load_index(annotations, tmp_path)
    assert capsys.readouterr().err == ""


def test_nothing_is_left_of_a_write_that_failed(
    annotations: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        load_index(annotations, tmp_path)
    assert list((tmp_path / "index").iterdir()) == []
