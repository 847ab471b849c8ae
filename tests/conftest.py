"""What every test shares: one thread (the models are tiny) and the numbers recorded from the
official code.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, an_engine

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# In the background (`make test &`) Ctrl-C is ignored, and would be by every process that a test
# interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The compact set of recorded numbers, without the licensed tokenizers."""
    return GOLDEN


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one container engine of a test run: that of this machine, or a private one."""
    with an_engine(tmp_path_factory.mktemp("engine")) as started:
        yield started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=20,
        help="SIGKILLs of tests/train/test_chaos.py (make chaos: 200)",
    )


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """How often the random test has to hit."""
    return int(request.config.getoption("--kills"))
