"""The run directory: it appears whole, math is its identity, no attempt overwrites another."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError, UsageError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_json, write_json
from densekit.recipes.load import load_recipe
from densekit.runs import layout
from densekit.runs.layout import (
    RunDir,
    Status,
    checkpoint_name,
    checkpoints_in,
    move_aside,
    open_replay,
    open_run,
    run_path,
)
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath
from tests.support.files import names
from tests.support.needs import needs
from tests.support.runs import made_math


def math(seed: int = 1, starts_from: str | None = None) -> RunMath:
    return RunMath(recipe=made_math({"name": "mine", "seed": seed}), starts_from=starts_from)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_run(tmp_path: Path) -> None:
    run = open_run(tmp_path / "deep" / "runs", math())
    assert run.path == tmp_path / "deep" / "runs" / f"mine-{math().sha256[:10]}"
    assert sorted(files(run.path)) == ["math.json", "status.json"]
    assert (run.math, run.sha256) == (math(), json_sha256(math().as_json()))
    assert run.status == Status(state="created", attempt=0)
    assert not run.complete
    assert names(run.path.parent) == [run.path.name]
    assert run.path.stat().st_mode & 0o777 == 0o755


def test_the_same_math_is_the_same_run_and_other_math_another(tmp_path: Path) -> None:
    run = open_run(tmp_path, math())
    run.set_status("complete")
    before = files(run.path)
    reordered = RunMath.model_validate(dict(reversed(math().as_json().items())))
    again = open_run(tmp_path, reordered)
    assert again == run and files(run.path) == before and again.complete
    others = {
        open_run(tmp_path, other).path
        for other in (math(seed=2), math(starts_from="a"), math(starts_from="b"))
    }
    assert len(others) == 3 and run.path not in others


def test_the_identity_of_a_recipe_is_its_math(tmp_path: Path) -> None:
    def place(*overrides: str) -> Path:
        return run_path(
            tmp_path, RunMath(recipe=load_recipe("tiny_stage1", overrides).math(), starts_from=None)
        )

    assert place() == place("title=other", "notes=[a]", "paper=x", "sources={seed: dice}")
    assert place() != place("seed=1")
    assert place("optimizer.learning_rate=0.01") == place("optimizer.learning_rate=1e-2")


@pytest.mark.parametrize(
    "content", [{}, {"math.json": json.dumps(math(seed=2).as_json())}, {"notes.txt": "mine"}]
)
def test_something_else_at_its_place_is_refused_and_left_alone(
    tmp_path: Path, content: dict[str, str]
) -> None:
    path = run_path(tmp_path, math())
    path.mkdir()
    for name, text in content.items():
        (path / name).write_text(text, encoding="utf-8")
    before = files(tmp_path)
    with pytest.raises(
        UsageError, match="exists but is not this run: move it away or choose another --runs-dir"
    ):
        open_run(tmp_path, math())
    assert files(tmp_path) == before


def test_a_file_at_its_place_is_refused(tmp_path: Path) -> None:
    run_path(tmp_path, math()).write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is not this run"):
        open_run(tmp_path, math())


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_runs_dir_that_is_a_file(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"--runs-dir .*file.*: is not a folder"):
        open_run(tmp_path / "file" / inside, math())
    assert names(tmp_path) == ["file"]


def test_a_runs_dir_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(layout.tempfile, "mkdtemp", refuse)
    with pytest.raises(UsageError, match=r"--runs-dir .*: cannot be written: Permission denied"):
        open_run(tmp_path / "runs", math())
    assert files(tmp_path) == {}


def test_a_runs_dir_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        needs("user", "root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        open_run(tmp_path, math())


@pytest.mark.parametrize("failing", ["math.json", "status.json"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_run_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    def write(path: Path, value: Any) -> None:
        if path.name == failing:
            path.write_text("half", encoding="utf-8")
            raise error
        write_json(path, value)

    monkeypatch.setattr(layout, "write_json", write)
    expected = UsageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(
        expected, match="No space left on device" if isinstance(error, OSError) else None
    ):
        open_run(tmp_path, math())
    assert names(tmp_path) == []


def test_another_process_may_make_the_same_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(temporary: Path, path: Path) -> None:
        shutil.copytree(temporary, path)
        RunDir(path).new_attempt(Execution(threads=3))
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(Path, "rename", rename)
    run = open_run(tmp_path, math())
    assert run.status.attempt == 1
    assert names(tmp_path) == [run.path.name]


def test_replays_are_numbered_and_an_unfinished_one_goes_on(tmp_path: Path) -> None:
    name = open_run(tmp_path, math()).path.name
    first = open_replay(tmp_path / "deep", name, math())
    assert first.path == tmp_path / "deep" / f"{name}.replay1"
    assert (first.math, first.status) == (math(), open_run(tmp_path, math()).status)
    first.set_status("failed")
    assert open_replay(tmp_path / "deep", name, math()) == first
    first.set_status("complete")
    before = files(first.path)
    assert open_replay(tmp_path / "deep", name, math()).path.name == f"{name}.replay2"
    assert files(first.path) == before
    assert names(tmp_path / "deep") == [f"{name}.replay1", f"{name}.replay2"]


@pytest.mark.parametrize("content", [{}, {"math.json": json.dumps(math(seed=2).as_json())}, None])
def test_a_replay_leaves_what_is_no_replay_alone(
    tmp_path: Path, content: dict[str, str] | None
) -> None:
    path = tmp_path / "mine.replay1"
    if content is None:
        path.write_text("a file", encoding="utf-8")
    else:
        path.mkdir()
        for name, text in content.items():
            (path / name).write_text(text, encoding="utf-8")
    before = files(tmp_path)
    assert open_replay(tmp_path, "mine", math()).path.name == "mine.replay2"
    assert files(tmp_path).items() >= before.items()


def test_two_processes_make_replays_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(temporary: Path, path: Path) -> None:
        monkeypatch.setattr(Path, "rename", rename)
        rename(Path(shutil.copytree(temporary, tmp_path / "copy")), path)
        RunDir(path).set_status("complete")
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(Path, "rename", late)
    assert open_replay(tmp_path, "mine", math()).path.name == "mine.replay2"
    assert names(tmp_path) == ["mine.replay1", "mine.replay2"]


def test_status_roundtrip(tmp_path: Path) -> None:
    run = open_run(tmp_path, math())
    run.new_attempt(Execution())
    for state, message, code in (
        ("running", "", 0),
        ("failed", "broken « JSON »", 3),
        ("complete", "", 0),
    ):
        run.set_status(state, message=message, exit_code=code)
        assert RunDir(run.path).status == Status(
            state=state, message=message, exit_code=code, attempt=1
        )
        assert run.complete == (state == "complete")


def test_attempts_are_numbered(tmp_path: Path) -> None:
    run = open_run(tmp_path, math())
    for number in (1, 2, 3):
        run.stop_file.touch()
        folder = run.new_attempt(Execution(world_size=number))
        assert (
            folder
            == run.attempt
            == run.attempt_folder(number)
            == run.path / "attempts" / f"{number:04d}"
        )
        assert run.status == Status(state="created", attempt=number)
        assert not run.stop_file.exists(), "an attempt that begins was not asked to stop yet"
        run.set_status("running")
        run.metrics.write_text(f"{number}\n", encoding="utf-8")
    assert [
        read_json(run.attempt_folder(n) / "execution.json")["world_size"] for n in (1, 2, 3)
    ] == [
        1,
        2,
        3,
    ]
    assert run.metrics.read_text(encoding="utf-8") == "3\n" and run.math == math()


def test_the_first_failure_of_an_attempt_is_its_cause(tmp_path: Path) -> None:
    run = open_run(tmp_path, math())
    for _ in range(2):
        run.new_attempt(Execution())
        assert run.fail("no image", 3) and not run.fail("another rank ended", 1)
        assert (run.status.state, run.status.message, run.status.exit_code) == (
            "failed",
            "no image",
            3,
        )


def test_only_whole_checkpoints_are_seen(tmp_path: Path) -> None:
    assert checkpoints_in(tmp_path / "none") == []
    for step in (10, 9, 100):
        (tmp_path / checkpoint_name(step)).mkdir()
    for name in (".step-00000011.saving", ".step-00000008.deleted", "step-00000012"):
        (tmp_path / name).write_text("") if name[0] == "s" else (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == [
        checkpoint_name(step) for step in (9, 10, 100)
    ]


def test_move_aside_overwrites_nothing(tmp_path: Path) -> None:
    places = []
    for number in (1, 2, 3):
        run = open_run(tmp_path, math())
        run.metrics.write_text(str(number), encoding="utf-8")
        places.append(move_aside(run))
        assert not run.path.exists()
    assert [place.name.rpartition(".")[2] for place in places] == ["old1", "old2", "old3"]
    assert [(place / "metrics.jsonl").read_text(encoding="utf-8") for place in places] == [
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("math.json", "{", "math.json cannot be read"),
        ("math.json", "[]", "math.json must hold a JSON object"),
        ("math.json", "{}", "math.json has no `schema`; give a run directory"),
        ("math.json", '{"schema": 99}', "math.json has schema 99; this version reads 2"),
        ("math.json", b"\xff", "math.json cannot be read"),
        ("status.json", "", "status.json cannot be read"),
        ("status.json", "[1]", "status.json must hold a JSON object"),
        (
            "status.json",
            '{"state": "complete"}',
            "status.json: attempt: Field required; give a run",
        ),
        ("status.json", None, "status.json is missing; give a run directory"),
    ],
)
def test_a_damaged_run_is_named(
    tmp_path: Path, name: str, text: str | bytes | None, message: str
) -> None:
    run = open_run(tmp_path, math())
    (run.path / name).unlink()
    if text is not None:
        (run.path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        _ = run.math, run.status
