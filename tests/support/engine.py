"""A container engine for tests: the one that is there, or a private one where there are tools to
start it.

Tools: engine.sh, hostbase.sh and slurm.sh in the folder that DENSEKIT_TEST_TOOLS names, or in
../shared/tools.
"""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("DENSEKIT_TEST_TOOLS") or ROOT.parent / "shared" / "tools")
STANDIN = "densekit-test-standin:3.11"


@dataclass(frozen=True)
class Engine:
    """Where `docker` is and how it is reached."""

    environment: Mapping[str, str]
    private: bool
    """Started for the tests: it has a pretend hook for GPUs, and no network but `host` and `none`.
    """

    def run(
        self, *command: str | Path, cwd: Path = ROOT, timeout: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this engine."""
        environment = {**self.environment, **variables}
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
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
    """The engine that answers, else a private one in `folder`, stopped at the end; else the test is
    skipped.
    """
    surroundings = clean_environment()
    here = Engine(surroundings, private=False)
    if _answers(here):
        socket = os.environ.get("DOCKER_HOST", "")
        hook = (
            Path(socket.removeprefix("unix://")).parent / "hook" / "nvidia-container-runtime-hook"
        )
        yield Engine(
            here.environment, private=hook.is_file()
        )  # also one that engine.sh started for several sessions
        return
    script = TOOLS / "engine.sh"
    if not script.is_file():
        pytest.skip(
            f"no container engine answers (`docker version`), and {script} is not there to start a private one"
        )
    started = subprocess.run(
        ["bash", str(script), "up", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "FAKE_GPU": "1"},
        timeout=300,
        check=False,
    )
    if started.returncode:
        pytest.skip(f"engine.sh cannot start an engine here: {started.stderr.strip()[-300:]}")
    try:
        yield Engine({**surroundings, **_variables(script, folder)}, private=True)
    finally:
        stop_service(script, folder)


def stop_service(script: Path, folder: Path) -> None:
    """Stop what a script of the tools started. Removing an engine's layers can take minutes: nobody
    waits for that.
    """
    down = subprocess.Popen(
        ["bash", str(script), "down", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with suppress(subprocess.TimeoutExpired):
        down.wait(timeout=60)
    if (folder / "dockerd.pid").exists():
        warnings.warn(
            f"{script.name} down has not stopped the engine in {folder} (process {down.pid})",
            stacklevel=2,
        )


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


def _answers(engine: Engine) -> bool:
    try:
        return (
            engine.run("docker", "version").returncode == 0
            and engine.run("docker", "compose", "version").returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _variables(script: Path, folder: Path) -> dict[str, str]:
    """What `engine.sh env` exports."""
    printed = subprocess.run(
        ["bash", str(script), "env", str(folder)], capture_output=True, text=True, check=True
    ).stdout
    found = dict(re.findall(r"(\w+)=(\S+)", printed))
    return {name: value.replace("$PATH", os.environ["PATH"]) for name, value in found.items()}


def make_standin(engine: Engine, folder: Path) -> str:
    """An image with Python 3.11, bash and tini out of this host's packages, in place of a base from
    a registry.
    """
    script = TOOLS / "hostbase.sh"
    if not script.is_file():
        pytest.skip(f"a base image is needed, and {script} is not there to make one")
    folder.mkdir(parents=True)
    run(["sh", str(script), str(folder / "base.tar")])
    run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "tini"], folder)
    (package,) = folder.glob("tini_*.deb")
    run(["dpkg", "-x", str(package), str(folder / "tini")])
    engine.ok(
        "docker",
        "import",
        "-c",
        "ENV PATH=/usr/local/bin:/usr/bin:/bin",
        folder / "base.tar",
        f"{STANDIN}-base",
    )
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


def run(command: Sequence[str], folder: Path | None = None) -> None:
    """Prepare something; where that cannot be done here, the test is skipped and says so."""
    environment = {
        **os.environ,
        "DS_BUILD_OPS": "0",
    }  # pip asks DeepSpeed's setup.py for its metadata
    done = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=500,
        check=False,
    )
    assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr[
        -2000:
    ]  # what a lock is there to show
    if done.returncode:
        pytest.skip(
            f"{' '.join(command[:5])}... failed: {(done.stderr or done.stdout).strip()[-300:]}"
        )


def tool(name: str) -> str:
    """A command that requirements/dev.txt installs beside this Python."""
    path = Path(sys.executable).parent / name
    assert path.is_file(), f"{path} is missing; run `make setup`"
    return str(path)
