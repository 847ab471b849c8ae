"""Commands that tests run beside what they test."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.needs import needs


def tool(name: str) -> str:
    """A command that requirements/dev.txt installs beside this Python."""
    path = Path(sys.executable).parent / name
    assert path.is_file(), f"{path} is missing; run `make setup`"
    return str(path)


def prepare(need: str, *command: str | Path, folder: Path | None = None) -> None:
    """Run what a test has to have done beforehand; where it fails, `need` is not met."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=folder,
        # pip asks DeepSpeed's setup.py for its metadata, which would look for compilers.
        env={**os.environ, "DS_BUILD_OPS": "0"},
        timeout=500,
        check=False,
    )
    # What a lock is there to show is no reason to skip.
    assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr[-2000:]
    if done.returncode:
        words = " ".join(str(part) for part in command[:5])
        needs(need, f"{words}... failed: {(done.stderr or done.stdout).strip()[-300:]}")
