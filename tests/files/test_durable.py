"""What is said to be on disk was sent there: every fsync is counted, by the path it was for."""

import os
from pathlib import Path

import pytest

from densekit.files import durable
from densekit.runs.records import FEED_FILE, METRICS_FILE, Position, Records


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that os.fsync was called for, in order."""
    found: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_file_and_a_folder_are_sent_to_disk(tmp_path: Path, synced: list[Path]) -> None:
    durable.write_bytes(tmp_path / "a", b"1")
    assert synced == []
    durable.fsync(tmp_path / "a")
    durable.fsync(tmp_path)
    assert synced == [tmp_path / "a", tmp_path]


def test_a_rename_is_sent_to_disk_with_its_folder(tmp_path: Path, synced: list[Path]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    durable.rename(tmp_path / "a", tmp_path / "in" / "b")
    assert synced == [tmp_path / "in"] and (tmp_path / "in" / "b").read_bytes() == b"1"


def test_records_are_on_disk_before_a_checkpoint_counts_them(
    tmp_path: Path, synced: list[Path]
) -> None:
    with Records(tmp_path, Position(chain="start")) as records:
        records.position()
    assert sorted(synced) == [tmp_path / FEED_FILE, tmp_path / METRICS_FILE]
