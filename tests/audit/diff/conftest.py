"""A world, a run that every other is compared with, and copies to change."""

import shutil
from pathlib import Path

import pytest

from tests.support.runs import copy_world, make_world, train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("worlds") / "first")


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every other is compared with; nothing may change it."""
    return train(world, tmp_path_factory.mktemp("first"))


@pytest.fixture
def second(world: Path, tmp_path: Path) -> Path:
    """A copy of the first world, to change something in."""
    return copy_world(world, tmp_path / "second")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the first run, to damage."""
    return Path(shutil.copytree(run, tmp_path / run.name))
