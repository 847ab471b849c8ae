"""Preemption: signals and the stop file, and what happens to a rank whose peer died."""

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from densekit.errors import INTERRUPTED_CODE, PREEMPTED_CODE, DensekitError
from densekit.runs.processes import alive

BLOCKED_S = 5.0
"""How long a signal before the first step may wait for Python: a collective does not let it in."""

OWN_ERROR_S = 3.0
"""A rank whose peer died gets so long for an error of its own, which says more; it may be waiting
for a file to reach the disk.
"""


class Preempted(DensekitError):
    """The run was asked to stop and did, at a checkpoint (exit code 75, as sysexits' EX_TEMPFAIL:
    try again).
    """

    exit_code = PREEMPTED_CODE


class Interrupted(DensekitError):
    """The run was asked to stop before its first step, where there is nothing to save."""

    exit_code = INTERRUPTED_CODE


class RankLost(DensekitError):
    """Another rank of the run ended without saying why: this one cannot continue (exit code 1)."""


class StopRequests:
    """Whether this rank was asked to stop: by SIGTERM or SIGINT, or by the stop file of the run
    (rank 0 looks).
    """

    def __init__(self, stop_file: Path | None) -> None:
        self.stop_file = stop_file
        self.by: str | None = None
        self.in_steps = False
        """Set when the first step begins. A signal before that raises Interrupted at once."""
        self.peers: tuple[int, ...] = ()

    def install(self, peers: Sequence[int]) -> None:
        """Take over the signals. `peers`: process ids of the other ranks on this host.

        A launcher sends SIGTERM both to preempt and to clear up after a rank died. In the second
        case this process may hang in a collective for ever: a thread ends it once a peer is gone.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(True)
        theirs.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._sockets = (ours, theirs)  # kept open
        self.peers = tuple(peers)
        threading.Thread(target=_watch, args=(ours, self), daemon=True).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.by = signal.Signals(number).name
        if not self.in_steps:
            raise Interrupted(f"stopped by {self.by} before the first step: nothing was to save")

    def lost_peer(self, wait: float = 1.0) -> bool:
        """Whether another rank on this host is gone; one that is ending gets `wait` seconds."""
        deadline = time.monotonic() + wait
        while all(alive(pid) for pid in self.peers):
            if time.monotonic() > deadline or not self.peers:
                return False
            time.sleep(0.05)
        return True

    @property
    def requested(self) -> bool:
        """Asked at the start of every step."""
        if self.by is None and self.stop_file is not None and self.stop_file.exists():
            self.by = "the driver"
        return self.by is not None


def _watch(ours: socket.socket, requests: StopRequests) -> None:
    while signal.SIGTERM not in ours.recv(64):
        if not requests.in_steps:
            break
    if not requests.in_steps:
        time.sleep(BLOCKED_S)
        os._exit(INTERRUPTED_CODE)
    while all(alive(pid) for pid in requests.peers):
        time.sleep(0.5)
    time.sleep(OWN_ERROR_S)
    print("exiting: a peer rank died", flush=True)
    os._exit(1)
