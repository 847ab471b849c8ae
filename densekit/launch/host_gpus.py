"""The GPUs of this host, as nvidia-smi lists them, and which container image has kernels for them.
Nothing here needs torch.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.containers.tags import CPU_TARGET, image_tag, target_of
from densekit.errors import UsageError
from densekit.spec.capability import GENERATIONS, Generation, container_image_for
from densekit.spec.execution import Execution
from densekit.spec.hardware import Hardware, found_hardware

QUERY = ("index", "name", "compute_cap", "memory.total", "memory.used", "driver_version")
OLDEST_DRIVER = (525, 60, 13)
"""Both GPU images hold CUDA 12 (NVIDIA's compatibility table: any CUDA 12 runs on this driver and
on newer ones).
"""
VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE_VISIBLE = (["-1"], ["NoDevFiles"], ["none"], ["void"])


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
                "/dev/nvidiactl exists but nvidia-smi is not installed: install the utilities of "
                "the NVIDIA driver, or use --device cpu"
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
        lines = (done.stdout + done.stderr).strip().splitlines()
        if any("No devices were found" in line for line in lines):
            return []
        why = lines[0] if lines else f"exit code {done.returncode}"
        raise UsageError(f"nvidia-smi failed ({why}): repair the driver, or use --device cpu")
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
            f"nvidia-smi printed `{line}` where {', '.join(QUERY)} were expected: update the driver"
        ) from None


def _visible(found: list[Gpu]) -> list[Gpu]:
    asked = os.environ.get(VISIBLE)
    if asked is None:
        return found
    words = [word.strip() for word in asked.split(",") if word.strip()]
    if words in NONE_VISIBLE:
        return []
    if not all(word.isdigit() for word in words):
        raise UsageError(
            f"{VISIBLE}={asked}: give indices of nvidia-smi's list, as in {VISIBLE}=0,1"
        )
    return [gpu for gpu in found if str(gpu.index) in words]


def pick(found: Sequence[Gpu], count: int) -> list[Gpu]:
    """`count` of the GPUs, those with the least memory in use.

    Raises UsageError when there are fewer, or of several kinds.
    """
    if not found:
        raise UsageError(f"--gpus {count}: nvidia-smi finds no GPU on this host; use --device cpu")
    if len(found) < count:
        raise UsageError(
            f"--gpus {count}: this host has {len(found)}; try --gpus {len(found)} "
            "(same result, slower)"
        )
    idle_first = sorted(found, key=lambda gpu: (gpu.used_mib, gpu.index))
    picked = sorted(idle_first[:count], key=lambda gpu: gpu.index)
    kinds = {gpu.capability: str(gpu) for gpu in picked}
    if len(kinds) > 1:
        raise UsageError(
            f"mixed GPU models ({'; '.join(kinds.values())}): list those of one model in {VISIBLE}"
        )
    return picked


def gpu_variables(execution: Execution) -> dict[str, str]:
    """Variables that give a process of this host its GPUs: those with the least memory in use, by
    nvidia-smi's numbers. Raises UsageError as `pick`.
    """
    if execution.device != "cuda" or not (found := find_gpus()):
        return {}
    numbers = ",".join(str(gpu.index) for gpu in pick(found, execution.world_size))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: numbers}


def kind_of(picked: Sequence[Gpu]) -> Hardware:
    """The row of the hardware table for GPUs of one kind, with the memory of the smallest."""
    first = picked[0]
    return found_hardware(first.name, first.capability, min(gpu.memory_mib for gpu in picked))


def image_for_gpus(gpus: Sequence[Gpu]) -> str:
    """The tag of the container image that trains on these GPUs, or without any on the CPU.

    Raises UsageError when no image has kernels for them.
    """
    return image_tag(_generation(gpus[0]).container_image if gpus else CPU_TARGET)


def _generation(gpu: Gpu) -> Generation:
    if (generation := container_image_for(gpu.capability)) is not None:
        return generation
    known = "; ".join(f"{image_tag(row.container_image)} for {row.gpus}" for row in GENERATIONS)
    raise UsageError(
        f"no container image has kernels for {gpu} (there are {known}): use --launcher local with "
        "a torch that has"
    )


def check_image(image: str, gpus: Sequence[Gpu]) -> None:
    """UsageError when one of our container images has no kernels for these GPUs; what those of
    others have is not known.
    """
    for row in GENERATIONS:
        if row.container_image == target_of(image):
            for gpu in gpus:
                if not row.has_kernels_for(gpu.capability):
                    raise UsageError(
                        f"--image {image} has kernels for {row.gpus}, and GPU {gpu.index} is "
                        f"{gpu}: use --image {image_for_gpus([gpu])}"
                    )


def check_driver(gpus: Sequence[Gpu]) -> None:
    """UsageError when the host's driver is older than the images' CUDA can work with."""
    for gpu in gpus:
        numbers = tuple(int(part) for part in gpu.driver.split(".") if part.isdigit())
        if numbers < OLDEST_DRIVER:
            oldest = ".".join(map(str, OLDEST_DRIVER))
            raise UsageError(
                f"NVIDIA driver {gpu.driver} is too old for CUDA 12 of the container images: "
                f"update it to {oldest} or newer"
            )
