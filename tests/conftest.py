"""What every test shares: one thread (the models are tiny) and the numbers recorded from the official code."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The compact set of recorded numbers, without the licensed tokenizers."""
    return GOLDEN
