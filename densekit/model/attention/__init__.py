"""Attention over packed micro-batches, registered with transformers: one module per kernel.

A kernel is a module named as in `spec.types.AttentionKernel`. Its function `attend` takes query
[1, H, T, D], key and value [1, Hkv, T, D] and the sequences of the micro-batch, and returns
[1, T, H, D]. With a window w, query q sees the keys k of its sequence with q - w < k <= q; without
one (None), all up to itself. `packed.py` checks what reaches a kernel. NAME is part of the name it
is registered under, PACKAGE what it imports (None: nothing), INSTALL what provides that.
"""

from importlib import import_module
from typing import get_args

from densekit.errors import UsageError
from densekit.model.attention.packed import PackedAttention
from densekit.spec.types import AttentionKernel

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
    module = _MODULES[kernel]
    if module.PACKAGE is None:
        return
    try:
        import_module(module.PACKAGE)
    except ImportError as error:
        raise UsageError(
            f"--attention {kernel}: {module.PACKAGE} cannot be imported here ({error}); "
            f"install {module.INSTALL}, or use --attention sdpa"
        ) from None
