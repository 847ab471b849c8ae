"""One engine, one stand-in base image and one set of wheels for all tests of images."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import ROOT, STANDIN, Engine, make_standin, run


@pytest.fixture(scope="session")
def engine(container_engine: Engine) -> Engine:
    return container_engine


@pytest.fixture(scope="session")
def standin(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield make_standin(engine, tmp_path_factory.mktemp("standin") / "base")
    engine.run("docker", "image", "rm", "--force", STANDIN, f"{STANDIN}-base")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the cpu image installs, fetched beforehand, so that it is built without a network."""
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
    for lock in ("requirements/train.txt", *locks):
        run([*fetch, "--require-hashes", "-r", lock], ROOT)
    run([*fetch, "-r", "requirements/torch.txt"], ROOT)
    if not any("+cpu" in path.name for path in folder.glob("torch-*")):
        pytest.skip("pip is not set up to offer the CPU build of torch (requirements/torch.txt)")
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
