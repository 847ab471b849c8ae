"""Start and stop a private service for tests: engine.sh and slurm.sh of this folder."""

import os
import re
import subprocess
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tests.support.needs import needs

FOLDER = Path(__file__).parent
Service = Literal["engine", "slurm"]
NEED = {"engine": "docker", "slurm": "slurm"}


def start_service(service: Service, folder: Path) -> dict[str, str]:
    """Start a private service with everything in `folder`; returns the variables that reach it.

    The test is skipped, with what the script said, where that cannot be done here.
    """
    script = FOLDER / f"{service}.sh"
    up = subprocess.run(
        ["bash", str(script), "up", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if up.returncode:
        needs(NEED[service], f"none answers, and none can be started: {up.stderr.strip()[-300:]}")
    printed = subprocess.run(
        ["bash", str(script), "env", str(folder)], capture_output=True, text=True, check=True
    ).stdout
    return {
        name: value.replace("$PATH", os.environ["PATH"])
        for name, value in re.findall(r"(\w+)=(\S+)", printed)
    }


def stop_service(service: Service, folder: Path) -> None:
    """Stop it. Removing an engine's layers can take minutes: nobody waits for that."""
    down = subprocess.Popen(
        ["bash", str(FOLDER / f"{service}.sh"), "down", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with suppress(subprocess.TimeoutExpired):
        down.wait(timeout=60)
    if (folder / "dockerd.pid").exists():
        warnings.warn(
            f"{service}.sh down has not stopped the engine in {folder} (process {down.pid})",
            stacklevel=2,
        )


def answers(*command: str) -> bool:
    """Whether a command of a service ends well."""
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
