"""What this machine or container can train, on one screen: torch, GPUs, number type, attention
kernel, DeepSpeed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import torch

from densekit.spec.capability import GENERATIONS, Capability, generation_of

TARGET_VARIABLE = "DENSEKIT_TARGET"
"""Set by an image: which of docker/Dockerfile's targets it is."""
KERNELS = {"a100": ("flash-attn", "flash_attn"), "v100": ("xformers", "xformers.ops")}
"""The attention kernel each GPU image holds: distribution and module."""
Mark = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding; a warning or failure says what to do."""

    mark: Mark
    name: str
    text: str


def has_code_for(capability: Capability, archs: Sequence[str]) -> bool:
    """Whether machine code built for `archs` ("sm_80", ...) runs on a GPU: same major version,
    minor not newer.

    `compute_XY` is left out: its code is compiled by the driver, and only by one that is new
    enough.
    """
    major, minor = capability
    built = [
        int(arch.removeprefix("sm_"))
        for arch in archs
        if arch.startswith("sm_") and arch[3:].isdigit()
    ]
    return any(number // 10 == major and number % 10 <= minor for number in built)


def selftest() -> list[Line]:
    """Every finding, the verdict last."""
    target = os.environ.get(TARGET_VARIABLE)
    archs = (torch._C._cuda_getArchFlags() or "").split() if torch.version.cuda else []
    capabilities = [
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    ]
    lines = [
        _torch_line(archs),
        *_device_lines(capabilities, archs, target),
        *_kernel_lines(capabilities, target),
        _deepspeed_line(),
    ]
    return [*lines, _verdict(lines, capabilities)]


def _torch_line(archs: Sequence[str]) -> Line:
    built = (
        f"CUDA {torch.version.cuda}, code for {' '.join(archs)}"
        if torch.version.cuda
        else "no CUDA"
    )
    return Line(mark="ok", name="torch", text=f"{torch.__version__} ({built})")


def _device_lines(
    capabilities: Sequence[Capability], archs: Sequence[str], target: str | None
) -> list[Line]:
    if not capabilities:
        return [_no_device(target)]
    lines = []
    for index, capability in enumerate(capabilities):
        name = f"GPU {index}"
        what = f"{torch.cuda.get_device_name(index)}, compute capability {capability[0]}.{capability[1]}"
        if problem := wrong_device(capability, archs, target) or _computes(index):
            lines.append(Line(mark="FAIL", name=name, text=f"{what}: {problem}"))
        else:
            lines.append(
                Line(mark="ok", name=name, text=f"{what}: {generation_of(capability).dtype}")
            )
    if len(set(capabilities)) > 1:
        lines.append(
            Line(
                mark="FAIL",
                name="GPUs",
                text="of several kinds; let the container see one kind only",
            )
        )
    return lines


def _no_device(target: str | None) -> Line:
    if target in KERNELS:
        asked = os.environ.get("NVIDIA_VISIBLE_DEVICES") not in (None, "", "void", "none")
        reason = (
            "torch sees none: the host's driver is missing or too old (`nvidia-smi` on the host), "
            "or the NVIDIA container toolkit is not set up"
            if asked
            else "none was given to this container: start it with --gpus, or through compose"
        )
        return Line(mark="warn", name="GPU", text=reason)
    return Line(mark="ok", name="GPU", text="none: fp32 on the processor")


def wrong_device(capability: Capability, archs: Sequence[str], target: str | None) -> str | None:
    """Why a GPU of this capability cannot be used in this image; None if it can."""
    if capability < GENERATIONS[-1].lowest:
        return "older than V100 (7.0), which nothing here is built for"
    if target == "a100" and generation_of(capability).attention != "flash":
        return "flash-attn needs 8.0 or newer; use the v100 image"
    if not has_code_for(capability, archs):
        other = {"a100": "; use the v100 image", "v100": "; use the a100 image"}.get(
            target or "", ""
        )
        return f"this torch has code for {' '.join(archs)} only{other}"
    return None


def _computes(index: int) -> str | None:
    try:
        ones = torch.ones(8, 8, device=f"cuda:{index}", dtype=torch.float16)
        return None if float((ones @ ones).sum()) == 512 else "a small product comes out wrong"
    except RuntimeError as error:
        return f"a small product fails: {str(error).splitlines()[0]}"


def _kernel_lines(capabilities: Sequence[Capability], target: str | None) -> list[Line]:
    if target not in KERNELS:
        return [Line(mark="ok", name="attention", text="SDPA of torch")]
    distribution, module = KERNELS[target]
    if find_spec(module.split(".")[0]) is None:
        return [
            Line(
                mark="FAIL",
                name="attention",
                text=f"{distribution} is not installed; build the image again",
            )
        ]
    problem = _import_problem(module)
    if problem is None:
        return [Line(mark="ok", name="attention", text=f"{distribution} {version(distribution)}")]
    # Both kernels' libraries may ask for the driver's at import, so without a GPU this can be no
    # more than its absence.
    return [
        Line(
            mark="FAIL" if capabilities else "warn",
            name="attention",
            text=f"{distribution} {problem}",
        )
    ]


def _deepspeed_line() -> Line:
    # Else DeepSpeed looks for an accelerator and warns about what it found.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    problem = _import_problem("deepspeed")
    if problem is not None:
        return Line(
            mark="FAIL", name="DeepSpeed", text=f"{problem}; ZeRO-2 and ZeRO-3 cannot be used"
        )
    installed = import_module("deepspeed.git_version_info").installed_ops
    ops = sorted(name for name, is_installed in installed.items() if is_installed)
    compiled = ", ".join(ops) or "none, and none is needed"
    return Line(
        mark="ok",
        name="DeepSpeed",
        text=f"{version('deepspeed')}, ZeRO-2 and ZeRO-3; compiled operations: {compiled}",
    )


def _import_problem(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:  # whatever a broken library raises at import
        return f"cannot be imported: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _verdict(lines: Sequence[Line], capabilities: Sequence[Capability]) -> Line:
    failed = [line.name for line in lines if line.mark == "FAIL"]
    if failed:
        return Line(
            mark="FAIL", name="so", text=f"it cannot train as it is; see {', '.join(failed)}"
        )
    if not capabilities:
        return Line(mark="ok", name="so", text="it can train on the processor: --device cpu")
    row = generation_of(capabilities[0])
    options = (
        f"--device cuda --gpus {len(capabilities)} --dtype {row.dtype} --attention {row.attention}"
    )
    return Line(mark="ok", name="so", text=f"it can train on a GPU: {options}")
