"""SIGKILL at random moments: `make chaos` does it 200 times."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.runs.layout import checkpoints_in
from densekit.runs.processes import alive
from tests.support.training import Started, assert_equal, start_run
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

ENGINES = (0, 0, 3)
"""ZeRO stages to draw from; DDP twice, as its runs are short."""


def test_random_moments(workplace: Workplace, tmp_path: Path, kills: int) -> None:
    """Kill one rank, all ranks or their parent until `kills` hit a running trainer; every run ends
    the same.
    """
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    undisturbed: dict[int, Started] = {}
    seconds: dict[int, float] = {}
    for stage in sorted(set(ENGINES)):
        begun = time.monotonic()
        undisturbed[stage] = start_run(workplace, tmp_path / f"whole-{stage}", zero_stage=stage)
        undisturbed[stage].finish()
        seconds[stage] = time.monotonic() - begun
    hit = number = resumed = 0
    while hit < kills:
        stage = draw.choice(ENGINES)
        started = start_run(workplace, tmp_path / str(number), zero_stage=stage)
        number += 1
        while not started.run.complete and hit < kills:
            victim = draw.choice(("rank", "ranks", "parent"))
            delay = draw.uniform(0.2, 1.2) * seconds[stage]
            killed = attempt_and_kill(started, victim, delay, draw)
            hit += killed
            resumed += killed and bool(checkpoints_in(started.run.checkpoints))
        if not started.run.complete:
            started.finish()
        assert_equal(started, undisturbed[stage])
        assert not [check for check in verify_run(started.run.path) if check.state == "fail"]
    assert resumed >= kills // 10, (
        f"only {resumed} of {hit} kills left a checkpoint behind: the delays are too short"
    )


def attempt_and_kill(started: Started, victim: str, delay: float, draw: random.Random) -> bool:
    """One attempt, killed after `delay` seconds; returns whether something was left to kill."""
    hit = False

    def kill(supervisor: int, ranks: list[int]) -> None:
        nonlocal hit
        time.sleep(delay)
        victims = {"rank": [draw.choice(ranks)], "ranks": ranks, "parent": [supervisor]}[victim]
        hit = any(alive(pid) for pid in victims)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    started.attempt(watch=kill)
    return hit
