import threading
from pathlib import Path

import pytest

from densekit.files import durable
from densekit.files.json_files import write_json
from densekit.files.whole import written_whole


def test_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a file.json"
    path.write_text("old")
    with written_whole(path) as temporary:
        temporary.write_text("n")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_of_one_process_write_the_same_file(tmp_path: Path) -> None:
    """As threads of one process do, or processes of two containers that have the same number."""
    path = tmp_path / "status.json"
    with written_whole(path) as one:
        one.write_text("first")
        with written_whole(path) as other:
            other.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_write_json_at_once(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(100):
                write_json(path, {"state": "failed"})
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(durable, "observer", lambda operation, _: seen.append(operation))
    with written_whole(tmp_path / "file", flush=True) as temporary:
        temporary.write_text("text")
    assert seen == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("name", [".", "folder", "nowhere/page.html"])
def test_what_cannot_be_written_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(OSError) as caught, written_whole(Path(name)) as temporary:
        temporary.write_text("new")
    assert caught.value.filename == name
