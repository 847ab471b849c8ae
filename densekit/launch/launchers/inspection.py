"""The process that inspects the models of a recipe, and reading what it prints."""

import os
import subprocess
import sys

from densekit.errors import DataError
from densekit.files.json_files import parse_json
from densekit.spec.model_parts import ModelParts

VARIABLES = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
"""It needs no GPU and may run where others train."""
TIMEOUT_S = 900
"""A small model of the same kind is tried in seconds; importing torch may take minutes."""


def inspection_arguments(parts: ModelParts) -> list[str]:
    """What follows the interpreter."""
    return ["-m", "densekit", "inspect", parts.model_dump_json()]


def inspect_here(parts: ModelParts) -> list[str]:
    """What a process of this interpreter finds. Raises DataError where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, *inspection_arguments(parts)],
            env={**os.environ, **VARIABLES},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"the models could not be inspected within {TIMEOUT_S} s: try "
            f"`{sys.executable} -c 'import transformers'`"
        ) from None
    return found_problems(done.returncode, done.stdout, done.stderr)


def found_problems(code: int, out: bytes, errors: bytes) -> list[str]:
    """The problems that the process printed. Raises DataError, with its last line, on failure."""
    try:
        if code == 0:
            return [str(problem) for problem in parse_json(out)["problems"]]
    except (ValueError, KeyError, TypeError):
        pass
    lines = errors.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
    raise DataError(f"the models could not be inspected: {lines[-1]}")
