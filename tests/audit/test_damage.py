"""Every file of a complete and of an interrupted run directory, damaged in every way: each command
ends with an exit code and a sentence, and `verify` notices.

A few of each in `make test`, all of them in `make test-all`.
"""

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from densekit.errors import DensekitError
from densekit.launch.chain import already_complete, begin, open_next_attempt
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.waiting import settle
from densekit.runs.layout import RunDir, open_run
from densekit.runs.manifest import read_manifest
from densekit.runs.process_handle import ProcessHandle, write_handle
from densekit.train.inputs import check_earlier_inputs
from densekit.train.resume import resume
from tests.support.command_line import Cli, caller
from tests.support.runs import flip_byte, make_world, train

pytestmark = pytest.mark.timeout(600)


def replaced(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    flip_byte(path, path.stat().st_size // 2)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_outside(path: Path) -> None:
    other = path.parents[2] / "outside"
    other.write_text("{}", encoding="utf-8")
    path.unlink()
    path.symlink_to(other)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": replaced(b""),
    "cut": cut,
    "flipped": flipped,
    "null": replaced(b"null"),
    "list": replaced(b"[]"),
    "object": replaced(b"{}"),
    "deep": replaced(b"[" * 100_000),
    "deep and closed": replaced(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "huge number": replaced(b"9" * 5000),
    "too large": replaced(b'{"schema": 1e400}'),
    "nan": replaced(b'{"schema": NaN}'),
    "not text": replaced(bytes(range(256))),
    "gone": Path.unlink,
    "folder": folder,
    "link outside": link_outside,
    "dangling link": dangling,
    "fifo": fifo,
}
FILES = {
    "complete": [
        *("math.json", "status.json", "manifest.json", "certificate.json", "init.safetensors"),
        *("metrics.jsonl", "feed.jsonl", "connector.safetensors", "results.json"),
        *("attempts/0001/execution.json", "attempts/0001/environment.json"),
        "attempts/0001/launch.json",
    ],
    "interrupted": [
        *("math.json", "status.json", "manifest.json", "certificate.json", "init.safetensors"),
        *("metrics.jsonl", "feed.jsonl", "attempts/0001/execution.json"),
        *("attempts/0001/environment.json", "attempts/0001/launch.json"),
        *(
            f"checkpoints/step-00000004/{name}"
            for name in ("checkpoint.json", "rank-0000.safetensors")
        ),
    ],
}
NOT_HASHED = ("launch.json",)
"""What tells where an attempt ran: it is no evidence, and `ls` shows it."""
UNNOTICED = (("interrupted", "status.json", "flipped"),)
"""A letter of the message of a run that goes on."""
CASES = [(state, name, damage) for state in FILES for name in FILES[state] for damage in DAMAGE]
FEW = CASES[::7]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each state, which nothing may change."""
    top = tmp_path_factory.mktemp("originals")
    world = make_world(top / "world")
    made = {
        "complete": train(world, top / "complete"),
        "interrupted": train(world, top / "interrupted", stop_after=4),
    }
    for path in made.values():
        write_handle(
            ProcessHandle(
                run=RunDir(path), launcher="local", host="elsewhere", details={"pid": 2**22 + 1}
            )
        )
    return made


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return caller(monkeypatch, capsys)


class NoEngine:
    """What `resume` asks of an engine before it fills it."""

    rank, world_size = 0, 1
    execution = SimpleNamespace(dtype="fp32")
    optimizer_steps = 0

    def __init__(self) -> None:
        self.shapes = {"connector.0.weight": (2,)}

    def shards(self) -> list[Any]:
        return []

    def scaler_state(self) -> None:
        return None

    def sync_params_from_masters(self) -> None:
        pass


def start_again(path: Path, math: Any) -> None:
    """What `densekit run` and the trainer do with a run directory before the first step."""
    run = open_run(path.parent, math)
    if already_complete(run):
        return
    begin(run, run.execution, Local())
    check_earlier_inputs(run, read_manifest(run.path))
    resume(run, SimpleNamespace(engine=NoEngine()), None)  # type: ignore[arg-type]


def check(
    originals: dict[str, Path], folder: Path, run_cli: Cli, state: str, name: str, damage: str
) -> None:
    original = originals[state]
    math = RunDir(original).math
    path = folder / "runs" / original.name
    shutil.copytree(original, path)
    sound = folder / "other" / original.name
    DAMAGE[damage](path / name)
    case = (state, name, damage)
    listed = run_cli("ls", "--runs-dir", path.parent)
    assert listed.code == 0 and "Traceback" not in listed.out + listed.err, case
    verified = run_cli("verify", path)
    if not name.endswith(NOT_HASHED) and case not in UNNOTICED:
        # Of what the manifest holds a copy, a missing file is a warning.
        noticed = verified.code in (1, 2, 3) or f"{path / name} is missing" in verified.out
        assert noticed, (case, verified)
    for pair in ((path, original), (original, path)):
        assert run_cli("diff", *pair).code in (0, 1, 2, 3), case
    assert run_cli("tail", path).code in (0, 2, 3) if state == "complete" else True, case
    assert run_cli("stop", path).code in (0, 2, 3), case
    shutil.copytree(path, sound, symlinks=True) if damage != "fifo" else None
    for act in (lambda: start_again(path, math), lambda: settle(RunDir(path), 1)):
        try:
            act()
        except DensekitError as error:
            assert error.exit_code in (2, 3) and len(str(error)) > 20, case
    if sound.exists():
        try:
            open_next_attempt(sound)
        except DensekitError as error:
            assert error.exit_code in (2, 3), case


@pytest.mark.parametrize(("state", "name", "damage"), FEW)
def test_some_damage(
    originals: dict[str, Path], tmp_path: Path, run_cli: Cli, state: str, name: str, damage: str
) -> None:
    check(originals, tmp_path, run_cli, state, name, damage)


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "name"), [(state, name) for state in FILES for name in FILES[state]]
)
def test_all_damage(
    originals: dict[str, Path], tmp_path: Path, run_cli: Cli, state: str, name: str
) -> None:
    """It starts no process: `ranks` is the kind that may be slow."""
    for number, damage in enumerate(DAMAGE):
        check(originals, tmp_path / str(number), run_cli, state, name, damage)


def test_the_lists_name_every_file(originals: dict[str, Path]) -> None:
    for state, path in originals.items():
        files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        assert files == set(FILES[state])
    assert {case[2] for case in FEW} == set(DAMAGE) and len(FEW) < 70
    assert {case[:2] for case in FEW} == set(
        itertools.chain.from_iterable(((s, n) for n in FILES[s]) for s in FILES)
    )
