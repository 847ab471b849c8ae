"""Several ranks in a second: one server imports torch, transformers, DeepSpeed and peft once and
forks them.

A cold start of a rank takes 10 to 20 s, mostly imports. The server forks a *supervisor*, which
stands for torchrun: it forks the ranks with torchrun's environment, and when one of them ends badly
it ends the others.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.runs.processes import alive

PRELOAD = ["tests.support.preload"]
Watch = Callable[[int, list[int]], None]
GRACE = 10.0
"""Seconds that ranks get to end after one of them did (torchrun gives 30)."""


@dataclass(frozen=True)
class Outcome:
    """How one rank ended."""

    returned: Any
    error: str | None
    """The last line of its traceback."""
    exit_code: int | None
    """As subprocess has it: -9 for SIGKILL; None when the supervisor itself was killed."""


def run_ranks(
    world_size: int,
    function: Callable[..., Any],
    *args: Any,
    timeout: float = 180,
    may_fail: bool = False,
    watch: Watch | None = None,
    **kwargs: Any,
) -> list[Outcome]:
    """Run `function(*args, **kwargs)` on every rank of a world; the process group is not started.

    `watch` is called beside them with the process ids of the supervisor and of the ranks. Raises
    AssertionError with the traceback when a rank fails, unless it may.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        job = (world_size, function, args, kwargs, folder)
        supervisor = context.Process(target=_supervise, args=job)
        supervisor.start()
        if watch is not None:
            _watch(watch, supervisor.pid, Path(folder), world_size)
        supervisor.join(timeout)
        if supervisor.is_alive():
            supervisor.kill()
            raise AssertionError(
                f"{function.__name__} on {world_size} ranks took more than {timeout} s"
            )
        _wait_until_gone(
            [pid for rank in range(world_size) if (pid := _load(Path(folder), "pid", rank))]
        )
        outcomes = [_read(Path(folder), rank) for rank in range(world_size)]
    if not may_fail:
        failed = [(rank, o) for rank, o in enumerate(outcomes) if o.exit_code != 0]
        assert not failed, "\n".join(
            f"rank {rank}: exit code {o.exit_code}\n{o.error}" for rank, o in failed
        )
    return outcomes


def _watch(watch: Watch, supervisor: int | None, folder: Path, world_size: int) -> None:
    assert supervisor is not None
    while None in (pids := [_load(folder, "pid", rank) for rank in range(world_size)]):
        time.sleep(0.01)
    watch(supervisor, pids)


def _read(folder: Path, rank: int) -> Outcome:
    return Outcome(*(_load(folder, name, rank) for name in ("returned", "error", "code")))


def _load(folder: Path, name: str, rank: int) -> Any:
    path = folder / f"{name}-{rank}"
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _wait_until_gone(pids: list[int]) -> None:
    """Ranks that lost their supervisor are ended by the kernel."""
    deadline = time.monotonic() + GRACE
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"ranks {pids} outlive their supervisor"
        time.sleep(0.02)


def _supervise(
    world_size: int, function: Callable[..., Any], args: Any, kwargs: Any, folder: str
) -> None:
    port = _free_port()
    ranks = {}
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            _be_rank(rank, world_size, port, function, args, kwargs, Path(folder))
        ranks[pid] = rank
        written = Path(folder) / f".pid-{rank}"
        written.write_bytes(pickle.dumps(pid))
        written.rename(Path(folder) / f"pid-{rank}")
    deadline = None
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            (Path(folder) / f"code-{ranks.pop(pid)}").write_bytes(pickle.dumps(code))
            if code != 0 and deadline is None:
                deadline = time.monotonic() + GRACE
                _signal(ranks, signal.SIGTERM)
        elif deadline is not None and time.monotonic() > deadline:
            _signal(ranks, signal.SIGKILL)
        else:
            time.sleep(0.01)


def _be_rank(
    rank: int,
    world_size: int,
    port: int,
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    folder: Path,
) -> None:
    code = 1
    try:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",
        }
        log = os.open(folder / f"log-{rank}", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        returned = function(*args, **kwargs)
        (folder / f"returned-{rank}").write_bytes(pickle.dumps(returned))
        code = 0
    except BaseException:
        sys.stdout.flush()
        printed = (folder / f"log-{rank}").read_text(errors="replace")[-2000:]
        (folder / f"error-{rank}").write_bytes(pickle.dumps(traceback.format_exc() + printed))
    finally:
        os._exit(code)


def _signal(pids: dict[int, int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
