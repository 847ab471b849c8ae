"""What the data doctor keeps: the record that lets it go on, and the process that a file ends."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from densekit.data.doctor import files, picture, pool
from densekit.data.doctor.examine import Request
from densekit.data.doctor.pool import Job
from tests.support.damaged_data import World
from tests.support.dying import dies_on_seven

FULL = Request(depth="full")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Looks:
    """Counts the files that are looked at, and stops as a kill would after some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.stop_after = 1000
        self._look = picture.look
        monkeypatch.setattr(files, "look", self)

    def __call__(self, path: Path, **options: Any) -> Any:
        if len(self.names) == self.stop_after:
            raise KeyboardInterrupt
        self.names.append(f"{path.name}{' full' if options['full'] else ''}")
        return self._look(path, **options)


def test_an_interrupted_examination_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        world.examine(FULL)
    first, looks.names, looks.stop_after = looks.names, [], 1000
    found = world.examine(FULL)
    assert len(first) == 4 and sorted(first + looks.names) == [f"{n}.jpg full" for n in range(6)]
    assert found.files is not None and found.files.again == 4
    assert found.certificate == World.examine(world, FULL, cache="other").certificate


def test_a_complete_examination_reads_every_byte_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    world.examine(FULL)
    looks.names.clear()
    world.examine(Request())
    assert looks.names == [], "headers are known while size and time are the same"
    damaged, state = world.image(2), world.image(2).stat()
    data = bytearray(damaged.read_bytes())
    data[-20] ^= 0xFF
    damaged.write_bytes(data)
    os.utime(damaged, ns=(state.st_atime_ns, state.st_mtime_ns))
    found = world.examine(FULL)
    assert len(looks.names) == 6
    assert next(kind for kind, *_ in found.findings) == "certificate_differs"
    looks.names.clear()
    os.utime(damaged, ns=(1, 1))
    world.examine(Request())
    assert looks.names == ["2.jpg"]


def test_a_damaged_record_is_read_as_far_as_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.examine(Request())
    (record,) = (world.cache / "doctor").glob("*.jsonl")
    lines = record.read_text().splitlines()
    record.write_text("\n".join(["x", "3", "{}", '["a", 1]', *lines[:2], lines[2][:9]]))
    looks = Looks(monkeypatch)
    assert list(world.examine(Request()).findings) == [] and len(looks.names) == 4
    record.write_bytes(b"\xff\xfe")
    assert list(world.examine(Request()).findings) == []


def test_a_cache_that_cannot_be_written_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.cache.write_text("a file where a folder is due")
    found = world.examine(FULL)
    assert [kind for kind, *_ in found.findings] == ["certificate_file"]
    assert "not kept" in capsys.readouterr().err


def test_files_that_cannot_be_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refused(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("/1.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refused)
    kinds = [(kind, detail) for kind, _, detail in world.examine(FULL).findings]
    assert kinds == [("unreadable_image", "Permission denied")]


def test_folders_that_cannot_be_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("/a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert {kind for kind, *_ in world.examine(FULL).findings} == {"image_folder_closed"}


@pytest.mark.ranks
def test_an_item_that_ends_its_process_is_found_and_the_rest_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "CHUNK", 2)
    job: Job[int, int] = Job(make=dies_on_seven, arguments=(), what="numbers")
    expected = {item: None if item == 7 else item * item for item in range(9)}
    assert dict(job.run(range(9), 1)) == expected


@pytest.mark.ranks
def test_processes_find_what_one_finds(world: World) -> None:
    world.image(3).write_bytes(b"<html>")
    alone = world.examine(FULL, cache="a")
    found = world.examine(Request(depth="full", workers=2), cache="b")
    assert list(found.findings) == list(alone.findings) != []
    assert found.certificate == alone.certificate
