"""A complete run that nothing may change, and copies to damage."""

import shutil
from pathlib import Path

import pytest

from tests.support.runs import make_world, train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("worlds") / "first")


@pytest.fixture(scope="module")
def original(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run; nothing may change it."""
    return train(world, tmp_path_factory.mktemp("first"))


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the complete run, to damage."""
    return Path(shutil.copytree(original, tmp_path / original.name))


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A world and a complete run over it, both to damage."""
    world = make_world(tmp_path / "world")
    return world, train(world, tmp_path / "runs")
