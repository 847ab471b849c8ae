"""The manifest: what ran, from which code, packages, models and data."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import densekit

PACKAGES = (
    "torch", "transformers", "accelerate", "peft", "safetensors", "tokenizers", "sentencepiece", "numpy", "pillow",
    "pydantic", "PyYAML",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions of densekit, Python, packages and the machine, and the git state of the source."""
    return {
        "densekit": densekit.__version__,
        "git": _git_state(Path(densekit.__file__).resolve().parent),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state(directory: Path) -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
