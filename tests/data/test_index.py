"""The index of an annotation file: what it measures, that it is made once, and that what was kept
is used and never trusted.
"""

import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densekit.data import annotation_file, entry_index
from densekit.data import annotations as module
from densekit.data.annotations import Annotations
from densekit.data.entry_index import COLUMNS, SUMMARY
from densekit.data.index import SampleIndex
from densekit.errors import DataError
from densekit.files import known_hash
from densekit.files.hashing import sealed


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
STRANGE = [
    *ENTRIES,
    _entry("<image>Was für ein Vögelchen? 鳥 🐦", 'Ein "\\Zeisig"\u2028.', image="zeisig/ä🐦.png"),
    _entry("half a pair: \ud83d", "so", score=float("nan"), more=[float("inf"), {"deep": [1.5]}]),
    _entry("<image> no more", "than", image=["one.png"], id=2**70),
]


def _write(folder: Path, entries: list[dict[str, Any]]) -> Path:
    (folder / "train.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder / "train.json"


def _load(folder: Path, entries: list[dict[str, Any]]) -> Annotations:
    return Annotations.load(_write(folder, entries), cache=folder)


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return _load(tmp_path, ENTRIES)


@pytest.fixture
def kept(annotations: Annotations, tmp_path: Path) -> Path:
    """The folder that holds the index of `annotations`."""
    return tmp_path / "index" / annotations.sha256


@pytest.fixture
def no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the whole annotation file was read")

    monkeypatch.setattr(module, "index_entries", read)


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry(" ", "\n", id="z"), r"sample 3 \(id z\): the conversation has no words"),
        (_entry("Why\ud83d?", "So."), r"sample 3 \(id None\): turn 0: character 3 is half a surr"),
    ],
)
def test_words_that_cannot_be_counted_are_refused_with_file_sample_and_id(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    for _ in ("made", "kept"):
        annotations = _load(tmp_path, [*ENTRIES, entry])
        with pytest.raises(DataError, match=rf"train\.json: {message}"):
            SampleIndex.of(annotations)


@pytest.mark.usefixtures("kept")
def test_what_was_kept_is_what_was_measured(
    annotations: Annotations, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    measured = Annotations.load(annotations.path)
    request.getfixturevalue("no_pass")
    read = Annotations.load(annotations.path, cache=tmp_path)
    assert _same(SampleIndex.of(read), SampleIndex.of(measured))
    assert [sample.entry for sample in read] == ENTRIES
    assert list(read.images()) == list(measured.images()) == [(0, "a.png"), (2, "b.png")]
    assert read.form is None and not read.untagged.any()


def test_another_file_has_another_index(kept: Path, tmp_path: Path) -> None:
    other = SampleIndex.of(_load(tmp_path, ENTRIES[1:]))
    assert other.modality_lengths.tolist() == [-5, 2]
    assert len([path for path in kept.parent.iterdir() if path.is_dir()]) == 2


FORMS: dict[str, Any] = {
    "a list": lambda entries: json.dumps(entries).encode(),
    "its own characters": lambda entries: _text(entries, indent=2).encode("utf-8", "surrogatepass"),
    "a byte order mark": lambda entries: (
        b"\xef\xbb\xbf" + _text(entries).encode("utf-8", "surrogatepass")
    ),
    "UTF-16": lambda entries: _text(entries).encode("utf-16", "surrogatepass"),
    "UTF-16 without a mark": lambda entries: _text(entries).encode("utf-16-be", "surrogatepass"),
    "UTF-32": lambda entries: _text(entries).encode("utf-32", "surrogatepass"),
    "JSON Lines": lambda entries: "\n".join(map(_text, entries)).encode("utf-8", "surrogatepass"),
    "two lists": lambda entries: (_text(entries[:2]) + ",\r\n" + _text(entries[2:])).encode(
        "utf-8", "surrogatepass"
    ),
}


def _text(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


@pytest.mark.parametrize("piece", [4, 5, 50, 1 << 22])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_entries_that_json_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, piece: int
) -> None:
    """Wherever the pieces that a file is read in are cut."""
    monkeypatch.setattr(annotation_file, "PIECE", piece)
    wanted = json.loads(json.dumps(STRANGE))
    path = tmp_path / "train.json"
    path.write_bytes(FORMS[form](STRANGE))
    for cache in (None, tmp_path, tmp_path):
        read = Annotations.load(path, cache=cache)
        assert repr([sample.entry for sample in read]) == repr(wanted)
        assert [index for index, _ in read.images()] == [0, 2, 3, 5]
        assert [name for _, name in read.images()][2:] == ["zeisig/ä🐦.png", "one.png"]
        digests = read.entries.digests.tolist()
        ids = [f"{place}:{digest:016x}" for place, digest in enumerate(digests)]
        assert ids == [sample.sample_id for sample in read]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _summary(**changes: Any) -> Any:
    def change(path: Path) -> None:
        summary = json.loads(path.read_bytes())
        path.write_text(json.dumps(sealed({**summary, **changes})))

    return change


DAMAGE = {
    "empty": (SUMMARY, lambda path: path.write_bytes(b"")),
    "no JSON": (SUMMARY, lambda path: path.write_bytes(b"hello")),
    "edited": (SUMMARY, lambda path: path.write_text(path.read_text().replace("null", '"x"'))),
    "another schema": (SUMMARY, _summary(schema=entry_index.SCHEMA + 1)),
    "of another file": (SUMMARY, _summary(annotations="0" * 64)),
    "another count": (SUMMARY, _summary(count=2)),
    "no array": ("digests.npy", Path.unlink),
    "a bit flipped": ("words.npy", _flip),
    "cut off": ("names.npy", _cut),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_made_anew_and_said(
    kept: Path,
    annotations: Annotations,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    file, damage = DAMAGE[name]
    damage(kept / file)
    again = Annotations.load(annotations.path, cache=tmp_path)
    fresh = Annotations.load(annotations.path)
    assert _same(SampleIndex.of(again), SampleIndex.of(fresh))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{kept}: damaged (") and told.err.count("\n") == 1
    Annotations.load(annotations.path, cache=tmp_path)
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in kept.iterdir()) == sorted(
        [SUMMARY, "names.npy", *(f"{column}.npy" for column in COLUMNS)]
    )


@pytest.mark.parametrize("operation", ["write", "fsync", "rename"])
def test_what_cannot_be_kept_is_read_all_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operation: str,
) -> None:
    def full(seen: str, path: Path) -> None:
        if seen == operation:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("densekit.files.durable.observer", full)
    annotations = _load(tmp_path, ENTRIES)
    assert [sample.entry for sample in annotations] == ENTRIES
    assert "not kept (No space left on device)" in capsys.readouterr().err
    left = [path for path in (tmp_path / "index").iterdir() if path.is_dir()]
    assert [path.name for path in left] == ([annotations.sha256] if operation == "rename" else [])


def test_a_kill_while_an_index_is_kept_leaves_nothing_that_hinders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the cache after each operation is what a kill behind it leaves there."""

    def copy(operation: str, path: Path) -> None:
        left.append(tmp_path / f"left{len(left)}")
        shutil.copytree(tmp_path / "index", left[-1] / "index")

    left: list[Path] = []
    path = _write(tmp_path, ENTRIES)
    monkeypatch.setattr("densekit.files.durable.observer", copy)
    Annotations.load(path, cache=tmp_path)
    monkeypatch.undo()
    assert len(left) > 2 * len(COLUMNS)
    for cache in left:
        for _ in range(2):
            assert [sample.entry for sample in Annotations.load(path, cache=cache)] == ENTRIES


def test_of_several_that_need_an_index_at_once_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = _write(tmp_path, ENTRIES), []
    real, begin = module.index_entries, threading.Barrier(4)

    def count(*args: Any, **kwargs: Any) -> Any:
        made.append(threading.get_ident())
        return real(*args, **kwargs)

    def load() -> None:
        begin.wait()
        read.append(Annotations.load(path, cache=tmp_path))

    monkeypatch.setattr(module, "index_entries", count)
    read: list[Annotations] = []
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all([sample.entry for sample in each] == ENTRIES for each in read) and len(read) == 4


def test_entries_that_are_refused_are_refused_each_time(tmp_path: Path) -> None:
    untagged = _entry("What is it?", "A cat.", image="a.png")
    entries = [ENTRIES[0], untagged, ENTRIES[1], untagged]
    for _ in ("made", "kept"):
        path = _write(tmp_path, entries)
        assert Annotations.load(path, cache=tmp_path).untagged.sum() == 2
        message = r"entry 1: image without a <image> tag; .* \(1 more entry is refused: 3\)"
        with pytest.raises(DataError, match=message):
            Annotations.load(path, cache=tmp_path, require_tag=True)
    path = _write(tmp_path, [*entries, {"id": "x"}])
    for _ in range(2):
        with pytest.raises(DataError, match=r"entry 1: image without .* refused: 3, 4\)"):
            Annotations.load(path, cache=tmp_path, require_tag=True)
        with pytest.raises(DataError, match=r"entry 4: no 'conversations'; give .* human first$"):
            Annotations.load(path, cache=tmp_path)


def test_the_file_is_hashed_once_for_as_long_as_it_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed() -> bool:
        digests.clear()
        Annotations.load(path, cache=tmp_path / "cache")
        return bool(digests)

    real, digests = known_hash.hashlib.file_digest, []
    monkeypatch.setattr(
        known_hash.hashlib,
        "file_digest",
        lambda file, name: (
            digests.append(name) or real(file, name) if file.name == str(path) else real(file, name)
        ),
    )
    path = _write(tmp_path, ENTRIES)
    assert hashed() and hashed(), "it was written just now, and may be written again"
    monkeypatch.setattr(known_hash, "SETTLED_S", -60.0)
    assert hashed() and not hashed()
    state = path.stat()
    path.write_text(path.read_text().replace("A cat.", "A dog."), encoding="utf-8")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert hashed(), "its time of change cannot be set back"
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    other.replace(path)
    assert hashed() and not hashed(), "another file was put in its place"
    for kept in (tmp_path / "cache" / "hashes").iterdir():
        kept.write_text("{}")
    assert hashed()


def test_a_file_that_changes_under_a_reader_is_noticed(
    annotations: Annotations, tmp_path: Path
) -> None:
    text = annotations.path.read_text()
    annotations.path.write_text(text[:100])
    with pytest.raises(DataError, match=r"train\.json: entry 2 is not what was read before: the f"):
        annotations[2]


def test_another_process_opens_the_files_for_itself(
    annotations: Annotations, tmp_path: Path
) -> None:
    for each in (annotations, Annotations.load(annotations.path, cache=tmp_path)):
        handed = pickle.dumps(each)
        assert [sample.entry for sample in pickle.loads(handed)] == ENTRIES
    assert b"digests" not in pickle.dumps(each), "the arrays are mapped again"
