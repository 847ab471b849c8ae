"""The end of a rank's process: what the process group does in threads must not kill it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.ranks

RANK = """
import atexit, ctypes, pathlib, sys, time
# Called last: a C function that keeps Python's lock for three seconds, until the interpreter ends.
atexit.register(ctypes.PyDLL(None).usleep, 3_000_000)
ending = pathlib.Path(sys.argv[4])
atexit.register(ending.touch)  # right before it
import torch
from torch import distributed
from densekit.ranks.collectives import end_process_group

rank, port, leaves = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "leaves"
store = distributed.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
tensor = torch.ones(8)
distributed.barrier()
while rank == 1 and not ending.exists():  # rank 0 has nothing left to do when the collective ends
    time.sleep(0.01)
work = distributed.all_reduce(tensor, async_op=True)
del work, tensor  # from here on it is gloo's thread that frees them
if leaves:
    ending.touch()
    end_process_group()
"""


def exit_codes(end: str, folder: Path) -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(port), end, str(folder / end)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=100)[1].decode() for rank in ranks]
    codes = [rank.returncode for rank in ranks]
    assert set(codes) <= {0, -signal.SIGABRT}, outputs
    return codes


def test_rank_that_left_the_process_group_exits_with_0(tmp_path: Path) -> None:
    """One that did not is killed: what is tried here does happen."""
    assert exit_codes("leaves", tmp_path) == [0, 0]
    assert exit_codes("stays", tmp_path)[0] == -signal.SIGABRT
