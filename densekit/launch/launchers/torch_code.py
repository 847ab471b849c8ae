"""Whether the torch of this Python has code for a GPU, asked in a process of its own: where runs
are submitted from there is no GPU that could be asked.
"""

import subprocess
import sys

from densekit.errors import UsageError
from densekit.spec.capability import has_code_for
from densekit.spec.hardware import hardware

ASK = ("-m", "densekit.train.torch_build")
TIMEOUT_S = 120


def check_torch_code(gpu: str | None) -> None:
    """Raises UsageError where this Python's torch has no code for a kind of GPU (None: not known,
    so that only a torch without any CUDA is refused).
    """
    version, *archs = _built_for()
    if not archs:
        raise UsageError(
            f"torch {version} of {sys.executable} has no CUDA: install a CUDA build of torch "
            "there, or train in a container image (--container pyxis or apptainer)"
        )
    if gpu is not None and not has_code_for(hardware(gpu).capability, archs):
        major, minor = hardware(gpu).capability
        raise UsageError(
            f"torch {version} of {sys.executable} has code for {' '.join(archs)}, none for {gpu} "
            f"(sm_{major}{minor}): install a torch that has, or train in the container image for "
            "it (--container pyxis or apptainer)"
        )


def _built_for() -> list[str]:
    """Version of torch, and the architectures that it has code for."""
    command = [sys.executable, *ASK]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{sys.executable} did not import torch within {TIMEOUT_S} s: try `{sys.executable} -c "
            "'import torch'`"
        ) from None
    if done.returncode != 0:
        raise UsageError(
            f"{sys.executable} cannot import torch "
            f"({(done.stderr.strip().splitlines() or ['no reason given'])[-1]}): run `make setup`, "
            "or train in a container image (--container pyxis or apptainer)"
        )
    return done.stdout.split()
