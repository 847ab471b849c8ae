"""SIGKILL while an evaluation answers: `make chaos` does it 100 times."""

import random
from pathlib import Path

import pytest

from tests.support.evaluating import ask, copy_of, kill_again_and_again
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

EACH = 10
"""Kills of one evaluation."""


def test_random_moments(workplace: Workplace, tmp_path: Path, kills: int) -> None:
    """Half as many kills as of trainings, on 1, 2 and 3 processes; all end the same."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    source = workplace.run_dir("tiny_stage2")
    whole = ask(copy_of(source, tmp_path / "whole"))
    whole.attempt(1)
    assert whole.folder.complete
    for number in range(max(1, kills // 2 // EACH)):
        asked = ask(copy_of(source, tmp_path / str(number)))
        kill_again_and_again(asked, EACH, seed=seed + number)
        assert asked.answers() == whole.answers()
