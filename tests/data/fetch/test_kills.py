"""Kills at any moment of a fetch, alone and with faults of the network: the next call goes on, and
the bytes are the same.
"""

import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from densekit.data.catalog import DataSet
from densekit.data.fetch.fetch import fetch_missing, survey
from densekit.data.fetch.hub import HubClient
from densekit.data.fetch.job import Job, Tools
from densekit.data.fetch.model_job import ModelJob
from densekit.data.fetch.part_job import PartJob
from densekit.data.fetch.progress import Progress
from densekit.data.fetch.records import Records
from densekit.data.fetch.transfer import Patience, Transfer
from tests.support.http_double import FAULTS, serving
from tests.support.hub_double import COMMIT, HubDouble
from tests.support.published import LANGUAGE, small_world, tree

pytestmark = pytest.mark.ranks
PATIENCE = Patience(
    timeout=2, attempts=20, first_attempts=20, first_wait=0.001, longest_wait=0.01, window=0.5
)
SECONDS = 60
"""A fetch that takes longer hangs."""


@contextmanager
def published(folder: Path) -> Iterator[tuple[HubDouble, DataSet]]:
    with serving(HubDouble(chunk=8192, pause=0.002)) as server:
        assert isinstance(server, HubDouble)
        yield server, small_world(server, folder, image_bytes=30_000)


def fetch(server: HubDouble, data_set: DataSet, root: Path) -> None:
    """A whole fetch, in this process."""
    jobs: list[Job] = [ModelJob(repository=LANGUAGE, commit=COMMIT, root=root / "models")]
    jobs += [
        PartJob(data_set=data_set, file=file, commit=None, root=root / "data")
        for file in data_set.distribution
    ]
    transfer = Transfer(PATIENCE)
    tools = Tools(transfer=transfer, hub=HubClient(server.url, PATIENCE), progress=Progress())
    problems = fetch_missing(survey(jobs, tools), tools, lambda _: None)
    transfer.close()
    assert not problems, problems


def fetch_and_kill(server: HubDouble, data_set: DataSet, root: Path, after: int) -> bool:
    """A fetch in a process of its own, killed after so many bytes; whether it was killed."""
    end = server.sent + after
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fetch(server, data_set, root)
            code = 0
        finally:
            os._exit(code)
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        if server.sent >= end:
            break
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert time.monotonic() < limit, "the fetch hangs"
    return True


def check_kills(folder: Path, kills: int, faults: int) -> None:
    """So many kills and faults in fetches that end in the bytes of one without any."""
    draw = random.Random(kills)
    with published(folder) as (server, data_set):
        fetch(server, data_set, folder / "whole")
        expected, size = tree(folder / "whole"), server.sent
        hit = spoilt = round_ = 0
        while hit < kills or spoilt < faults:
            root = folder / f"round{round_}"
            round_ += 1
            while hit < kills:
                server.faults = deque(draw.choices(FAULTS, k=2) if spoilt < faults else [])
                planned = len(server.faults)
                killed = fetch_and_kill(server, data_set, root, draw.randrange(1, size // 3))
                spoilt += planned - len(server.faults)
                hit += killed
                if not killed:
                    break
            rest = min(6, max(0, faults - spoilt))
            server.faults = deque(draw.choices(FAULTS, k=rest))
            fetch(server, data_set, root)
            spoilt += rest - len(server.faults)
            server.faults.clear()
            assert tree(root) == expected
            assert Records(root / "models").read(LANGUAGE) == Records(
                folder / "whole" / "models"
            ).read(LANGUAGE)
            left = [path.name for path in root.rglob("*") if path.name.startswith(".")]
            assert not [name for name in left if name.endswith((".part", ".extracting"))]


def test_kills_and_faults_end_in_the_same_bytes(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=4, faults=6)


@pytest.mark.slow
def test_thirty_kills_and_fifty_faults_end_in_the_same_bytes(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=30, faults=50)
