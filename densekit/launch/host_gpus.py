"""The GPUs of this host, as nvidia-smi tells them, and which image has code for them. Nothing here
needs torch.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import UsageError
from densekit.spec.capability import GENERATIONS, Generation, container_image_for

QUERY = ("index", "name", "compute_cap", "memory.total", "memory.used", "driver_version")
OLDEST_DRIVER = (525, 60, 13)
"""Both GPU images hold CUDA 12 (NVIDIA's compatibility table: any CUDA 12 runs on this driver and
on newer ones).
"""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One line of nvidia-smi."""

    index: int
    name: str
    capability: tuple[int, int]
    memory_mib: int
    used_mib: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


def find_gpus() -> list[Gpu]:
    """The GPUs of this host that CUDA_VISIBLE_DEVICES leaves; empty where there are none.

    Raises UsageError when device files are there but nvidia-smi is not, or does not answer.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        if Path("/dev/nvidiactl").exists():
            raise UsageError(
                "/dev/nvidiactl is there but nvidia-smi is not: install the driver's utilities"
            )
        return []
    command = [smi, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"nvidia-smi does not answer ({error}): repair the driver, or use --device cpu"
        ) from None
    if done.returncode != 0:
        told = (done.stdout + done.stderr).strip().splitlines()
        if any("No devices were found" in line for line in told):
            return []
        why = told[0] if told else f"exit code {done.returncode}"
        raise UsageError(f"nvidia-smi fails ({why}): repair the driver, or use --device cpu")
    return _visible([_parse(line) for line in done.stdout.splitlines() if line.strip()])


def _parse(line: str) -> Gpu:
    values = [value.strip() for value in line.split(",")]
    try:
        index, name, capability, total, used, driver = values
        major, minor = (int(part) for part in capability.split("."))
        return Gpu(
            index=int(index),
            name=name,
            capability=(major, minor),
            memory_mib=int(total),
            used_mib=int(used),
            driver=driver,
        )
    except ValueError:
        raise UsageError(
            f"nvidia-smi says {line!r}, which is not {', '.join(QUERY)}: the driver is too old"
        ) from None


def _visible(found: list[Gpu]) -> list[Gpu]:
    asked = os.environ.get(VISIBLE)
    if asked is None:
        return found
    words = [word.strip() for word in asked.split(",") if word.strip()]
    if words in (["-1"], ["NoDevFiles"], ["none"], ["void"]):
        return []
    if not all(word.isdigit() for word in words):
        raise UsageError(
            f"{VISIBLE}={asked}: give numbers of nvidia-smi's list, as in {VISIBLE}=0,1"
        )
    return [gpu for gpu in found if str(gpu.index) in words]


def pick(found: Sequence[Gpu], count: int) -> list[Gpu]:
    """`count` of the GPUs, those with the least memory in use.

    Raises UsageError when there are fewer, or of several kinds.
    """
    if len(found) < count:
        have = (
            f"this host has {len(found)}"
            if found
            else "this host has none (nvidia-smi finds no GPU)"
        )
        nearest = (
            f"nearest: --gpus {len(found)}, which computes the same in more time"
            if found
            else "use --device cpu"
        )
        raise UsageError(f"--gpus {count}: {have}; {nearest}")
    picked = sorted(
        sorted(found, key=lambda gpu: (gpu.used_mib, gpu.index))[:count], key=lambda gpu: gpu.index
    )
    kinds = {gpu.capability: str(gpu) for gpu in picked}
    if len(kinds) > 1:
        raise UsageError(
            f"GPUs of several kinds ({'; '.join(kinds.values())}): name those of one kind in {VISIBLE}"
        )
    return picked


def target_for(gpu: Gpu) -> Generation:
    """The image for a GPU; UsageError when none has code for it."""
    if (target := container_image_for(gpu.capability)) is not None:
        return target
    known = "; ".join(f"{target.container_image} for {target.gpus}" for target in GENERATIONS)
    raise UsageError(
        f"no image has kernels for {gpu} (there are {known}): use --launcher local with your own torch"
    )


def check_target(name: str, gpus: Sequence[Gpu]) -> None:
    """UsageError when the image named after a target has no code for these GPUs; other images are
    not known.
    """
    for target in GENERATIONS:
        if target.container_image == name:
            for gpu in gpus:
                if not target.has_kernels_for(gpu.capability):
                    raise UsageError(
                        f"image {name} is for {target.gpus}, and GPU {gpu.index} is {gpu}: use --image "
                        f"densekit:{target_for(gpu).container_image}"
                    )


def check_driver(gpus: Sequence[Gpu]) -> None:
    """UsageError when the host's driver is older than the images' CUDA can work with."""
    for gpu in gpus:
        numbers = tuple(int(part) for part in gpu.driver.split(".") if part.isdigit())
        if numbers < OLDEST_DRIVER:
            oldest = ".".join(map(str, OLDEST_DRIVER))
            raise UsageError(
                f"driver {gpu.driver} is too old for CUDA 12, which needs {oldest} or newer: update it"
            )
