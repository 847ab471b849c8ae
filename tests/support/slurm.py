"""A Slurm for tests: the one that answers here, or a private one with two nodes."""

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests.support.services import FOLDER, answers, start_service, stop_service

WAIT_SECONDS = 400


@contextmanager
def a_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The variables that reach a Slurm: none for the one of this machine, whose settings stay."""
    if answers("scontrol", "ping"):
        private = "DENSEKIT_PRIVATE_SLURM" in os.environ  # slurm.sh was started beforehand
        yield {"SLURM_CONF": os.environ["SLURM_CONF"]} if private else {}
        return
    with _the_only_one():
        try:
            yield start_service("slurm", folder)
        finally:
            stop_service("slurm", folder)


@contextmanager
def _the_only_one() -> Iterator[None]:
    """slurm.sh has fixed ports: a second test run on this machine waits for the first to end."""
    text = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
    (port,) = re.findall(r"SlurmctldPort=(\d+)", text)
    lock = FileLock(Path(tempfile.gettempdir()) / "densekit-test-slurm.lock", timeout=WAIT_SECONDS)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        lock.acquire()
    except Timeout:
        pytest.fail(
            f"another test run has had its Slurm for {WAIT_SECONDS} seconds: try again later"
        )
    try:
        while _in_use(int(port)):
            if time.monotonic() > deadline:
                pytest.fail(f"port {port}, which slurm.sh needs, is in use: stop the other Slurm")
            time.sleep(1)
        yield
    finally:
        lock.release()


def _in_use(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
