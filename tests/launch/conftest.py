"""A real container engine and a real Slurm: those of this machine, or private ones."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, make_base
from tests.support.launching import RUN_STUB

STUB_IMAGE = "densekit-test:stub"


@pytest.fixture(scope="session")
def engine(container_engine: Engine) -> dict[str, str]:
    """The variables that reach the container engine, as far as they are not set here anyway."""
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
    variables = {
        name: container_engine.environment[name]
        for name in names
        if name in container_engine.environment
    }
    return {name: value for name, value in variables.items() if os.environ.get(name) != value}


@pytest.fixture(scope="session")
def hostbase(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar archive of a small system with Python, made of what is installed here."""
    return make_base(tmp_path_factory.mktemp("image") / "base.tar")


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
