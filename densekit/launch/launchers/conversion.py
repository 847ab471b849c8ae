"""Processes of the trainer's environment that read or write weights, and reading what they print:
the one that converts the pickled weights of a folder, and `exchange`.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from densekit.errors import DataError, DensekitError, UsageError
from densekit.files.json_files import parse_json
from densekit.launch.launchers.inspection import VARIABLES
from densekit.launch.launchers.trainer_command import missing_packages
from densekit.runs.processes import die_with_parent
from densekit.spec.conversion import ConversionReport, ConversionRequest
from densekit.spec.part import P, read_part

SAYS = "densekit: "
"""How the line begins that a command ends with when it fails."""


def conversion_arguments(request: ConversionRequest) -> list[str]:
    """What follows the interpreter."""
    return ["-m", "densekit", "convert-folder", request.model_dump_json()]


def convert_here(request: ConversionRequest) -> ConversionReport:
    """What a process of this interpreter made of a folder. Raises as `run_here` and `made`."""
    return made(*run_here(conversion_arguments(request), "converting weights"))


def made(code: int, out: bytes, errors: bytes) -> ConversionReport:
    """The report that the process printed. Raises the error that it ended with."""
    return answer(ConversionReport, "the weights could not be converted", code, out, errors)


def run_here(arguments: Sequence[str], what: str) -> tuple[int, bytes, bytes]:
    """Exit code, output and last line of errors of a process of this interpreter; what it says
    besides goes to stderr. Raises UsageError where the trainer's packages are not here.
    """
    if missing := missing_packages():
        raise UsageError(
            f"{', '.join(missing)} not installed: {what} needs the trainer's packages; run `make "
            "setup`, or use --launcher docker"
        )
    errors = b""
    with tempfile.TemporaryFile() as out:
        with subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **VARIABLES},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            preexec_fn=_end_with_driver,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                errors = line
                if not line.startswith(SAYS.encode()):
                    print(line.decode(errors="replace"), end="", file=sys.stderr, flush=True)
        out.seek(0)
        return process.returncode, out.read(), errors


def _end_with_driver() -> None:
    die_with_parent(signal.SIGKILL)


def answer(kind: type[P], failed: str, code: int, out: bytes, errors: bytes) -> P:
    """What such a process printed, read. Raises the error that it ended with, or DataError that
    begins with `failed`.
    """
    lines = errors.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
    if code == 0:
        try:
            value = parse_json(out)
        except ValueError:
            raise DataError(f"{failed}: {lines[-1]}") from None
        return read_part(kind, value, source="densekit", remedy="try again")
    if lines[-1].startswith(SAYS):
        error: type[DensekitError] = UsageError if code == UsageError.exit_code else DataError
        raise error(lines[-1].removeprefix(SAYS))
    killed = " (it was killed: out of memory?)" if code in (-9, 137) else ""
    raise DataError(f"{failed}: {lines[-1]}{killed}")
