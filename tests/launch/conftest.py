"""A real container engine and a real Slurm: those of this machine, or private ones
(tests/support/engine.py).
"""

import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests.support.engine import TOOLS, Engine, stop_service
from tests.support.launching import RUN_STUB

STUB_IMAGE = "densekit-test:stub"
WAIT_SECONDS = 400


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _start(tool: str, folder: Path, *arguments: str, **variables: str) -> dict[str, str]:
    """Start a private service; returns the variables by which it is found."""
    script = TOOLS / tool
    if os.getuid() != 0 or not script.is_file():
        pytest.skip(
            f"nothing answers here, and {script} is not there (or this is not root) to start a "
            "private one"
        )
    up = subprocess.run(
        ["bash", str(script), "up", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **variables},
    )
    if up.returncode:
        pytest.skip(f"{tool} cannot start one here: {(up.stderr or up.stdout).strip()[-300:]}")
    told = subprocess.run(
        ["bash", "-c", f'eval "$(bash {script} env {folder})"; env -0'],
        capture_output=True,
        text=True,
        check=True,
    )
    after = dict(line.split("=", 1) for line in told.stdout.split("\0") if "=" in line)
    return {
        name: after[name]
        for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH", "SLURM_CONF")
        if name in after
    }


@pytest.fixture(scope="session")
def engine(container_engine: Engine) -> dict[str, str]:
    """The variables of a container engine that answers, also to requests for GPUs where it was
    started here.
    """
    pytest.importorskip("docker")
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
    found = {
        name: container_engine.environment[name]
        for name in names
        if name in container_engine.environment
    }
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of the one Slurm of a test run: that of this machine, or a private one with two
    nodes.
    """
    if _answers("scontrol", "ping"):
        yield {}
        return
    folder, script = tmp_path_factory.mktemp("slurm"), TOOLS / "slurm.sh"
    with _the_only_one(script):
        try:
            yield _start("slurm.sh", folder, "2")
        finally:
            stop_service(script, folder)


@contextmanager
def _the_only_one(script: Path) -> Iterator[None]:
    """slurm.sh has fixed ports: a second test run on this machine waits for the first to end."""
    ports = (
        re.findall(r"SlurmctldPort=(\d+)", script.read_text(encoding="utf-8"))
        if script.is_file()
        else []
    )
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        with FileLock(
            Path(tempfile.gettempdir()) / "densekit-test-slurm.lock", timeout=WAIT_SECONDS
        ):
            while ports and _in_use(int(ports[0])):
                if time.monotonic() > deadline:
                    pytest.fail(
                        f"port {ports[0]}, which {script} needs, is in use: another Slurm was not "
                        "stopped"
                    )
                time.sleep(1)
            yield
    except Timeout:
        pytest.fail(
            f"another test run on this machine has had its Slurm for {WAIT_SECONDS} seconds: try "
            "again then"
        )


def _in_use(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def hostbase(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar archive of a small system with Python, made of what is installed here."""
    script = TOOLS / "hostbase.sh"
    if os.getuid() != 0 or not script.is_file() or shutil.which("dpkg") is None:
        pytest.skip(
            f"{script} is not there (or this is not root on Debian) to make an image without a "
            "network"
        )
    place = tmp_path_factory.mktemp("image") / "base.tar"
    subprocess.run(["sh", str(script), str(place)], capture_output=True, check=True)
    return place


@pytest.fixture(scope="session")
def stub_image(engine: dict[str, str], hostbase: Path) -> Iterator[str]:
    """An image whose `python -m densekit train RUN` runs RUN/stub.py."""
    place = shutil.copy(hostbase, hostbase.with_name("stub.tar"))
    with tarfile.open(place, "a") as archive:
        for name, text in {"__init__.py": "", "__main__.py": RUN_STUB}.items():
            info = tarfile.TarInfo(f"./opt/stub/densekit/{name}")
            info.size, info.mode = len(text.encode()), 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("./usr/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, "python3"
        archive.addfile(link)
    settings = [
        part
        for value in ("PATH=/usr/bin", "PYTHONPATH=/opt/stub")
        for part in ("-c", f"ENV {value}")
    ]
    environment = {**os.environ, **engine}
    subprocess.run(
        ["docker", "import", *settings, str(place), STUB_IMAGE],
        env=environment,
        capture_output=True,
        check=True,
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


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, no GPU, no Slurm and no container around; the test starts in its own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("DENSEKIT_TARGET", "CUDA_VISIBLE_DEVICES", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)
