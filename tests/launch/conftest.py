"""A real container engine and a real Slurm: those of this machine, or private ones where there are tools to start them.

Tools: engine.sh, hostbase.sh and slurm.sh in the folder that DENSEKIT_TEST_TOOLS names, or in ../shared/tools.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import Engine

from .helpers import RUN_STUB

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("DENSEKIT_TEST_TOOLS") or ROOT.parent / "shared" / "tools")
STUB_IMAGE = "densekit-test:stub"


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _start(tool: str, folder: Path, *arguments: str, **variables: str) -> dict[str, str]:
    """Start a private service; returns the variables by which it is found."""
    script = TOOLS / tool
    if os.getuid() != 0 or not script.is_file():
        pytest.skip(f"nothing answers here, and {script} is not there (or this is not root) to start a private one")
    up = subprocess.run(
        ["bash", str(script), "up", str(folder), *arguments], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip
    if up.returncode:
        pytest.skip(f"{tool} cannot start one here: {(up.stderr or up.stdout).strip()[-300:]}")
    told = subprocess.run(
        ["bash", "-c", f'eval "$(bash {script} env {folder})"; env -0'], capture_output=True, text=True, check=True
    )
    after = dict(line.split("=", 1) for line in told.stdout.split("\0") if "=" in line)
    return {name: after[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH", "SLURM_CONF") if name in after}


@pytest.fixture(scope="session")
def engine(container_engine: Engine) -> dict[str, str]:
    """The variables of a container engine that answers, also to requests for GPUs where it was started here."""
    pytest.importorskip("docker")
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
    found = {name: container_engine.environment[name] for name in names if name in container_engine.environment}
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a Slurm with two nodes at least."""
    if _answers("scontrol", "ping"):
        yield {}
        return
    folder = tmp_path_factory.mktemp("slurm")
    try:
        yield _start("slurm.sh", folder, "2")
    finally:
        subprocess.run(["bash", str(TOOLS / "slurm.sh"), "down", str(folder)], capture_output=True, check=False)


@pytest.fixture(scope="session")
def hostbase(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar archive of a small system with Python, made of what is installed here."""
    script = TOOLS / "hostbase.sh"
    if os.getuid() != 0 or not script.is_file() or shutil.which("dpkg") is None:
        pytest.skip(f"{script} is not there (or this is not root on Debian) to make an image without a network")
    place = tmp_path_factory.mktemp("image") / "base.tar"
    subprocess.run(["sh", str(script), str(place)], capture_output=True, check=True)
    return place


@pytest.fixture(scope="session")
def stub_image(engine: dict[str, str], hostbase: Path) -> Iterator[str]:
    """An image whose `python -m densekit train RUN` runs RUN/stub.py."""
    with tarfile.open(hostbase, "a") as archive:
        for name, text in {"__init__.py": "", "__main__.py": RUN_STUB}.items():
            info = tarfile.TarInfo(f"./opt/stub/densekit/{name}")
            info.size, info.mode = len(text.encode()), 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("./usr/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, "python3"
        archive.addfile(link)
    settings = [part for value in ("PATH=/usr/bin", "PYTHONPATH=/opt/stub") for part in ("-c", f"ENV {value}")]
    environment = {**os.environ, **engine}
    subprocess.run(
        ["docker", "import", *settings, str(hostbase), STUB_IMAGE], env=environment, capture_output=True, check=True
    )
    yield STUB_IMAGE
    subprocess.run(["docker", "rmi", STUB_IMAGE], env=environment, capture_output=True, check=False)


@pytest.fixture
def with_engine(engine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This test's process talks to the engine."""
    for name, value in engine.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def with_slurm(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This test's process talks to Slurm."""
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
