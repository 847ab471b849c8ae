"""`densekit selftest`: whether this Python, or this container, can train: torch, GPUs, dtype,
attention kernel, DeepSpeed.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import torch

from densekit.errors import UsageError
from densekit.spec.capability import GENERATIONS, Capability, generation_of, has_code_for
from densekit.spec.check import Check, CheckState
from densekit.spec.kernels import KERNEL_PACKAGES
from densekit.spec.types import AttentionKernel

TARGET_VARIABLE = "DENSEKIT_TARGET"
"""Set by a container image: which of docker/Dockerfile's targets it is."""
KERNELS: dict[str, AttentionKernel] = {row.container_image: row.attention for row in GENERATIONS}
"""The attention kernel of each GPU image."""


def selftest() -> list[Check]:
    """Every check, the result last."""
    target = os.environ.get(TARGET_VARIABLE)
    archs = (torch._C._cuda_getArchFlags() or "").split() if torch.version.cuda else []
    capabilities = [
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    ]
    checks = [
        _torch(archs),
        *_devices(capabilities, archs, target),
        _attention(capabilities, target),
        _deepspeed(),
    ]
    return [*checks, _result(checks, capabilities)]


def _torch(archs: Sequence[str]) -> Check:
    cuda = torch.version.cuda
    built = f"CUDA {cuda}, code for {' '.join(archs)}" if cuda else "no CUDA"
    return Check(name="torch", state="ok", message=f"{torch.__version__} ({built})")


def _devices(
    capabilities: Sequence[Capability], archs: Sequence[str], target: str | None
) -> list[Check]:
    if not capabilities:
        return [_no_device(target)]
    checks = []
    for index, capability in enumerate(capabilities):
        name, version = f"GPU {index}", ".".join(map(str, capability))
        device = f"{torch.cuda.get_device_name(index)}, compute capability {version}"
        if problem := wrong_device(capability, archs, target) or _matmul_problem(index):
            checks.append(Check(name=name, state="fail", message=f"{device}: {problem}"))
        else:
            dtype = generation_of(capability).dtype
            checks.append(Check(name=name, state="ok", message=f"{device}: {dtype}"))
    if len(set(capabilities)) > 1:
        message = "mixed GPU models; expose only one (CUDA_VISIBLE_DEVICES)"
        checks.append(Check(name="GPUs", state="fail", message=message))
    return checks


def _no_device(target: str | None) -> Check:
    if target not in KERNELS:
        return Check(name="GPU", state="ok", message="none: fp32 on the CPU")
    if os.environ.get("NVIDIA_VISIBLE_DEVICES") in (None, "", "void", "none"):
        message = "none was given to this container: start it with --gpus, or through compose"
    else:
        message = (
            "torch finds none: the host's driver is missing or too old (run `nvidia-smi` on the "
            "host), or the NVIDIA Container Toolkit is not set up"
        )
    return Check(name="GPU", state="warn", message=message)


def wrong_device(capability: Capability, archs: Sequence[str], target: str | None) -> str | None:
    """Why a GPU of this capability cannot be used in this container image; None if it can."""
    if capability < GENERATIONS[-1].lowest:
        return "older than V100 (7.0), the oldest that densekit supports"
    if target == "a100" and generation_of(capability).attention != "flash":
        return "flash-attn needs 8.0 or newer; use the v100 image"
    if not has_code_for(capability, archs):
        other = {"a100": "; use the v100 image", "v100": "; use the a100 image"}
        return f"this torch has code for {' '.join(archs)} only{other.get(target or '', '')}"
    return None


def _matmul_problem(index: int) -> str | None:
    try:
        ones = torch.ones(8, 8, device=f"cuda:{index}", dtype=torch.float16)
        total = float((ones @ ones).sum())
    except RuntimeError as error:
        return f"fp16 matmul check failed: {str(error).splitlines()[0]}"
    if total != 512:
        return f"fp16 matmul check failed: {total:g} instead of 512"
    return None


def _attention(capabilities: Sequence[Capability], target: str | None) -> Check:
    name = "attention"
    if target not in KERNELS:
        return Check(name=name, state="ok", message="torch SDPA")
    kernel = KERNELS[target]
    package = KERNEL_PACKAGES[kernel]
    distribution = package.distribution
    if not package.installed:
        message = f"{distribution} is not installed; rebuild the container image"
        return Check(name=name, state="fail", message=message)
    problem = _import_problem(package.module)
    if problem is None and capabilities:
        uncomputed = _kernel_problem(kernel, capabilities[0])
        if uncomputed is not None:
            return Check(name=name, state="fail", message=uncomputed)
    if problem is None:
        return Check(name=name, state="ok", message=f"{distribution} {version(distribution)}")
    # Both kernels' libraries may ask for the driver's at import, so without a GPU this can be no
    # more than its absence.
    state: CheckState = "fail" if capabilities else "warn"
    return Check(name=name, state=state, message=f"{distribution} {problem}")


def _kernel_problem(kernel: AttentionKernel, capability: Capability) -> str | None:
    from densekit.model.attention import try_kernel
    from densekit.model.dtypes import TORCH_DTYPES

    try:
        try_kernel(kernel, torch.device("cuda", 0), TORCH_DTYPES[generation_of(capability).dtype])
    except UsageError as error:
        return str(error)
    return None


def _deepspeed() -> Check:
    # Else DeepSpeed looks for an accelerator and warns about what it found.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    name = "DeepSpeed"
    problem = _import_problem("deepspeed")
    if problem is not None:
        message = f"{problem}; ZeRO-2 and ZeRO-3 cannot be used"
        return Check(name=name, state="fail", message=message)
    installed = import_module("deepspeed.git_version_info").installed_ops
    ops = sorted(op for op, is_installed in installed.items() if is_installed)
    compiled = ", ".join(ops) or "none, and none is needed"
    message = f"{version('deepspeed')}, ZeRO-2 and ZeRO-3; compiled operations: {compiled}"
    return Check(name=name, state="ok", message=message)


def _import_problem(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:  # whatever a broken library raises at import
        return f"cannot be imported: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _result(checks: Sequence[Check], capabilities: Sequence[Capability]) -> Check:
    failed = [check.name for check in checks if check.state == "fail"]
    if failed:
        message = f"not ready to train (see {', '.join(failed)})"
        return Check(name="result", state="fail", message=message)
    if not capabilities:
        return Check(name="result", state="ok", message="ready to train on the CPU: --device cpu")
    row = generation_of(capabilities[0])
    options = (
        f"--device cuda --gpus {len(capabilities)} --dtype {row.dtype} --attention {row.attention}"
    )
    return Check(name="result", state="ok", message=f"ready to train on GPUs: {options}")
