"""Attention over packed micro-batches, registered with transformers: one module per kernel.

A kernel is a module named as in `spec.types.AttentionKernel`. Its function `attend` takes query
[1, H, T, D], key and value [1, Hkv, T, D] and the sequences of the micro-batch, and returns
[1, T, H, D]. With a window w, query q sees the keys k of its sequence with q - w < k <= q; without
one (None), all up to itself. `packed.py` checks what reaches a kernel. NAME is part of the name it
is registered under; `spec/kernels.py` says which package it imports.
"""

from importlib import import_module
from typing import get_args

import torch
from torch import nn

from densekit.model.attention.packed import PackedAttention
from densekit.model.packing import PackedSequences
from densekit.spec.kernels import KERNEL_PACKAGES, unusable
from densekit.spec.types import AttentionKernel

TRIED_HEAD_DIM = 128
"""Every kernel has it."""

_MODULES = {
    kernel: import_module(f"densekit.model.attention.{kernel}")
    for kernel in get_args(AttentionKernel)
}
KERNELS: dict[AttentionKernel, PackedAttention] = {
    kernel: PackedAttention(module.NAME, module.attend) for kernel, module in _MODULES.items()
}


def require_kernel(kernel: AttentionKernel) -> None:
    """Raises UsageError where the kernel's package cannot be imported: what is asked for is never
    replaced.
    """
    package = KERNEL_PACKAGES.get(kernel)
    if package is None:
        return
    try:
        import_module(package.module)
    except Exception as error:  # a package built for another torch raises whatever it likes
        raise unusable(kernel, f"cannot be imported here ({_first_line(error)})") from None


def try_kernel(kernel: AttentionKernel, device: torch.device, dtype: torch.dtype) -> None:
    """Compute a small micro-batch, forward and backward. Raises UsageError where the kernel's
    package is here and its machine code is not: built for another torch, CUDA or GPU.
    """
    if kernel not in KERNEL_PACKAGES:
        return
    row = torch.ones(1, 1, 3, TRIED_HEAD_DIM, device=device, dtype=dtype, requires_grad=True)
    sequences = PackedSequences(torch.tensor([0, 1, 3], dtype=torch.int32), device)
    try:
        output, _ = KERNELS[kernel](nn.Module(), row, row, row, None, sequences=sequences)
        output.sum().backward()
    except Exception as error:  # as above
        raise unusable(kernel, f"does not compute here ({_last_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
