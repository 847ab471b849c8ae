"""Runs that another driver started: whether they still run, `ls`, `stop`, and the next attempt."""

import json
import os
import shutil
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.launch.chain import open_next_attempt
from densekit.launch.listing import follow, list_runs
from densekit.launch.running import is_alive, still_running, stop
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import ProcessHandle, read_handle, write_handle
from tests.support.files import write_json
from tests.support.launching import stub_run

pytestmark = pytest.mark.usefixtures("bare_host")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return stub_run(tmp_path, "")[0]


def started(run: RunDir, launcher: str, host: str, **details: str | int) -> ProcessHandle:
    handle = ProcessHandle(run=run, launcher=launcher, host=host, details=details)
    write_handle(handle)
    return handle


def test_process_id_of_another_program_is_not_the_trainer(run: RunDir) -> None:
    started(run, "local", os.uname().nodename, pid=os.getpid())
    run.set_status("running")
    (row,) = list_runs(run.path.parent)
    assert (row.state, row.place) == ("gone", "")
    assert still_running(run) is None
    assert "no longer exists; `densekit run` resumes" in stop(run, now=True)
    assert run.status.state == "failed"
    assert list_runs(run.path / "nope") == []


def test_run_on_another_host_is_stopped_through_its_directory(run: RunDir) -> None:
    started(run, "docker", "elsewhere", container="densekit-x")
    run.set_status("running")
    (row,) = list_runs(run.path.parent)
    assert (row.state, row.place) == ("running?", "container densekit-x on elsewhere")
    with pytest.raises(UsageError, match="densekit-x on elsewhere: run this command on elsewhere"):
        stop(run, now=True)
    assert not run.stop_file.exists()
    assert "asked container densekit-x on elsewhere to stop" in stop(run, now=False)
    assert run.stop_file.exists()


def test_tail_says_where_nobody_knows_whether_a_run_goes_on(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started(run, "docker", "elsewhere", container="densekit-x")
    run.set_status("running")
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            run.set_status("complete")

    monkeypatch.setattr("densekit.launch.listing.time.sleep", pause)
    assert list(follow(run)) == [] and len(waits) == 3
    said = capsys.readouterr().err
    assert said.count("is not known here") == 1
    assert "run this command on elsewhere" in said and "until Ctrl-C" in said


def test_requeued_job_opens_the_next_attempt_with_its_handle(run: RunDir) -> None:
    handle = started(run, "slurm", "login", job="7")
    open_next_attempt(run.path)
    assert run.status.attempt == 1, "an attempt that did not begin is not over"
    run.set_status("running")
    open_next_attempt(run.path)
    assert run.status.attempt == 2 and read_handle(run) == handle
    run.set_status("complete")
    assert list_runs(run.path.parent)[0].place == "", "the job is over"
    with pytest.raises(UsageError, match="is complete: it has no next attempt"):
        open_next_attempt(run.path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("status.json", ""),
        ("status.json", "[1]"),
        ("status.json", None),
        ("certificate.json", ""),
        ("certificate.json", "null"),
        ("attempts/0001/launch.json", "null"),
    ],
)
def test_damaged_run_does_not_hide_the_others(run: RunDir, name: str, text: str | None) -> None:
    damaged = run.path.with_name("other")
    shutil.copytree(run.path, damaged)
    (damaged / name).unlink(missing_ok=True)
    if text is not None:
        write_json(damaged / name, text)
    rows = list_runs(run.path.parent)
    assert [row.state for row in rows] == ["created", "damaged"]
    assert name.rpartition("/")[2] in rows[1].message


@pytest.mark.ranks
def test_handle_of_version_0_1_is_read(run: RunDir) -> None:
    old = {"launcher": "slurm", "host": "login", "pid": None, "container": None, "job": "12_3"}
    write_json(run.attempt / "launch.json", {**old, "image": None})
    handle = read_handle(run)
    assert handle is not None and handle.details == {"job": "12_3"}
    (row,) = list_runs(run.path.parent)
    assert row.place == "Slurm job 12_3"


def test_handle_of_an_unknown_launcher_is_listed_and_not_stopped(run: RunDir) -> None:
    started(run, "swarm", "login", service="x")
    run.set_status("running")
    (row,) = list_runs(run.path.parent)
    assert (row.state, row.place) == ("running?", "swarm on login")
    with pytest.raises(UsageError, match="no launcher named 'swarm'"):
        stop(run, now=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"launch.json must hold a JSON object; delete it"),
        ('{"launcher": "local"}', r"launch.json has no `host`; delete it"),
        ('{"launcher": 1, "host": "x"}', r"launch.json: `launcher` must be a string; delete it"),
    ],
)
def test_damaged_handle_names_its_file(run: RunDir, text: str, message: str) -> None:
    write_json(run.attempt / "launch.json", text)
    with pytest.raises(DataError, match=message):
        read_handle(run)


def test_handle_without_what_its_launcher_needs_names_the_field(run: RunDir) -> None:
    handle = started(run, "local", os.uname().nodename, pid="twelve")
    with pytest.raises(DataError, match=r"launch.json: `pid` must be a whole number: it names"):
        is_alive(handle)
    write_json(run.attempt / "launch.json", json.dumps({"launcher": "docker", "host": "x"}))
    assert still_running(run) is None
    with pytest.raises(DataError, match=r"launch.json: `container` must be a string"):
        stop(run, now=True)


def test_run_that_nothing_knows_the_place_of_is_not_stopped(run: RunDir) -> None:
    run.set_status("running")
    with pytest.raises(UsageError, match=r"is running by its status.json, and nothing says where"):
        stop(run, now=True)


def test_run_that_is_over_is_not_stopped(run: RunDir) -> None:
    run.set_status("complete")
    with pytest.raises(UsageError, match="is complete: nothing is running that could be stopped"):
        stop(run, now=False)
