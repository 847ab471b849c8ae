"""Processes: whether they run, and how not to outlive whoever started them (Linux)."""

import ctypes
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(number: signal.Signals) -> None:
    """Let the kernel send this process `number` when the thread that started it is gone (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for (a zombie) does not.

    The first thread of a killed process can be a zombie while others still hold its files and
    locks: such a process runs.
    """
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state not in "ZX" or len(list((process / "task").iterdir())) > 1
    except (OSError, IndexError):
        return False
