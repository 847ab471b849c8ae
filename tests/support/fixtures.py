"""Fixtures that all tests may use: recorded numbers, trained runs, a container engine, a Slurm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, an_engine
from tests.support.paths import GOLDEN, GOLDEN_EXCHANGE, RECORDED, full_recording
from tests.support.slurm import a_slurm
from tests.support.workplace import Workplace, once_per_session, train_workplace


@pytest.fixture(scope="session")
def golden() -> Path:
    """The compact set of recorded numbers, without the licensed tokenizers."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_exchange() -> Path:
    """Official checkpoint folders of a tiny model; nothing in them is changed."""
    return GOLDEN_EXCHANGE


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The full recorded set, with the licensed tokenizers."""
    return full_recording()


@pytest.fixture(scope="session")
def any_recorded() -> Path:
    """The full recorded set where it is, else the compact one."""
    return RECORDED if RECORDED.is_dir() else GOLDEN


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The two tiny stages, trained once for a whole test run; no test may change them."""
    return Workplace(once_per_session(tmp_path_factory, "workplace", train_workplace))


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one container engine of a test run: that of this machine, or a private one."""
    with an_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that reach the one Slurm of a test run."""
    with a_slurm(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=5,
        help="SIGKILLs of tests/train/test_chaos.py (make chaos: 200)",
    )


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """How often the random test has to hit."""
    return int(request.config.getoption("--kills"))
