"""A container engine for tests: the one that answers here, or a private one."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import prepare
from tests.support.paths import ROOT
from tests.support.services import FOLDER, answers, start_service, stop_service

STANDIN = "densekit-test-standin:3.11"


@dataclass(frozen=True)
class Engine:
    """Where `docker` is and how it is reached."""

    environment: Mapping[str, str]
    private: bool
    """Started by engine.sh: a pretend hook for GPUs, and no network but `host` and `none`."""

    def run(
        self, *command: str | Path, cwd: Path = ROOT, timeout: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this engine."""
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**self.environment, **variables},
            timeout=timeout,
            check=False,
        )

    def ok(
        self, *command: str | Path, cwd: Path = ROOT, timeout: float = 120, **variables: str
    ) -> str:
        """Run a command that has to succeed; returns what it printed."""
        done = self.run(*command, cwd=cwd, timeout=timeout, **variables)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout


@contextmanager
def an_engine(folder: Path) -> Iterator[Engine]:
    """The engine that answers, else a private one in `folder`, stopped at the end."""
    environment = clean_environment()
    if answers("docker", "version") and answers("docker", "compose", "version"):
        # Also one that engine.sh started for several test runs.
        socket = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://"))
        hook = socket.parent / "hook" / "nvidia-container-runtime-hook"
        yield Engine(environment, private=hook.is_file())
        return
    variables = start_service("engine", folder)
    try:
        yield Engine({**environment, **variables}, private=True)
    finally:
        stop_service("engine", folder)


def clean_environment() -> dict[str, str]:
    """The environment without what compose.yaml reads: `make test ARGS=...` must not reach a
    service.
    """
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    read = {
        *re.findall(r"\$\{(\w+)", text),
        *re.findall(r"\w+", text.partition("args: [")[2].partition("]")[0]),
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in read and name != "COMPOSE_PROFILES"
    }
    return {**kept, "COMPOSE_ENV_FILES": os.devnull}


def make_base(place: Path) -> Path:
    """A tar archive of a small system with Python, out of what is installed on this host."""
    prepare("docker", "bash", FOLDER / "hostbase.sh", place)
    return place


def make_standin(engine: Engine, folder: Path) -> str:
    """A container image with Python 3.11, bash and tini, in place of a base from a registry."""
    folder.mkdir(parents=True)
    base = make_base(folder / "base.tar")
    apt = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root")
    prepare("docker", *apt, "download", "tini", folder=folder)
    (package,) = folder.glob("tini_*.deb")
    prepare("docker", "dpkg", "-x", package, folder / "tini")
    path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    engine.ok("docker", "import", "-c", path, base, f"{STANDIN}-base")
    context = folder / "context"
    context.mkdir()
    (context / "bash").write_bytes(Path("/bin/bash").read_bytes())
    (context / "tini").write_bytes((folder / "tini/usr/bin/tini-static").read_bytes())
    for name in ("bash", "tini"):
        (context / name).chmod(0o755)
    (context / "Dockerfile").write_text(
        f"FROM {STANDIN}-base\nCOPY bash tini /usr/bin/\n", encoding="utf-8"
    )
    engine.ok("docker", "build", "--quiet", "--network", "none", "--tag", STANDIN, context)
    return STANDIN
