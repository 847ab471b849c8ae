"""One engine, one stand-in base image and one set of wheels for all tests of images."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import prepare
from tests.support.engine import STANDIN, Engine, make_standin
from tests.support.needs import needs
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def engine(container_engine: Engine) -> Engine:
    return container_engine


@pytest.fixture(scope="session")
def standin(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield make_standin(engine, tmp_path_factory.mktemp("standin") / "base")
    engine.run("docker", "image", "rm", "--force", STANDIN, f"{STANDIN}-base")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the cpu image and those on it install, fetched first, so that they are built
    without a network.
    """
    folder = tmp_path_factory.mktemp("wheels")
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-d",
        str(folder),
    ]
    locks = [f"docker/requirements/{name}.txt" for name in ("sbom", "tensorboard")]
    more = ("train", "lmms-eval", "lmms-eval-package", "video")
    for lock in (*locks, *(f"requirements/{name}.txt" for name in more)):
        prepare("index", *fetch, "--require-hashes", "-r", lock, folder=ROOT)
    prepare("index", *fetch, "-r", "requirements/torch.txt", folder=ROOT)
    if not any("+cpu" in path.name for path in folder.glob("torch-*")):
        needs("index", "pip does not offer the CPU build of torch (requirements/torch.txt)")
    return folder


@pytest.fixture(scope="session")
def empty_image(engine: Engine) -> Iterator[str]:
    """An image with nothing in it: enough of a base for checks that run nothing."""
    name = "densekit-test-empty:1"
    subprocess.run(
        ["docker", "import", "-", name],
        input=b"\0" * 10240,
        env=engine.environment,
        check=True,
        capture_output=True,
    )
    yield name
    engine.run("docker", "image", "rm", "--force", name)
