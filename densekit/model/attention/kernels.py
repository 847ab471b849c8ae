"""Packed attention: one flat row of tokens, causal attention inside each segment, nothing across
segments.

One kernel per backend, all driven by the segments of the row: torch's SDPA segment by segment,
flash-attn varlen, xformers block-diagonal. Each takes query [1, H, T, D], key and value [1, Hkv, T,
D] and returns ([1, T, H, D], None). Each raises RuntimeError without segments, or with a mask: an
unsegmented row would let samples see each other.
"""

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from densekit.errors import UsageError
from densekit.model.packing import Segments
from densekit.spec.types import AttentionKernel

# No name says "flash": transformers would take it for one of its own and may put another in its
# place.
IMPLEMENTATIONS: dict[AttentionKernel, str] = {
    "sdpa": "densekit_packed_sdpa",
    "flash": "densekit_packed_varlen",
    "xformers": "densekit_packed_blocks",
}
MODULES: dict[AttentionKernel, tuple[str, str]] = {
    "flash": ("flash_attn", "flash-attn (2.8.3.post2, compiled with nvcc; the a100 image has it)"),
    "xformers": ("xformers.ops", "xformers (0.0.30 with torch 2.7.0; the v100 image has it)"),
}
"""Kernels that are packages of their own: what is imported, and what to install."""


def require_kernel(attention: AttentionKernel) -> None:
    """Raises UsageError where the kernel's package cannot be imported: what is asked for is never
    replaced.
    """
    if attention not in MODULES:
        return
    module, package = MODULES[attention]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"--attention {attention}: {module} cannot be imported here ({error}); install {package}, "
            "or use --attention sdpa"
        ) from None


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal SDPA, segment by segment."""
    lengths = _checked(segments, attention_mask, query).lengths
    # split() has one backward for all segments; slices would each fill a gradient of the whole row
    # with zeros.
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [
        F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=dropout if module.training else 0.0,
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=1), None


def packed_flash(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """flash-attn varlen: all segments in one call, KV heads shared inside the kernel."""
    from flash_attn import flash_attn_varlen_func

    row = _checked(segments, attention_mask, query)
    q, k, v = (
        tensor[0].transpose(0, 1) for tensor in _as_autocast(query, key, value)
    )  # [T, heads, D]
    output = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=row.boundaries,
        cu_seqlens_k=row.boundaries,
        max_seqlen_q=row.longest,
        max_seqlen_k=row.longest,
        dropout_p=dropout if module.training else 0.0,
        softmax_scale=scaling,
        causal=True,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return output[None], None


def packed_xformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """xformers with a block-diagonal causal mask, on its cutlass kernel.

    Left to choose, xformers would run another kernel on each GPU; cutlass is the one that a V100
    has. It neither broadcasts KV heads nor has a backward pass for its own grouped form, so they
    are repeated.
    """
    from xformers.ops import MemoryEfficientAttentionCutlassOp, memory_efficient_attention

    row = _checked(segments, attention_mask, query)
    q, k, v = (
        tensor.transpose(1, 2) for tensor in _as_autocast(query, key, value)
    )  # [1, T, heads, D]
    if (group := q.shape[2] // k.shape[2]) > 1:
        k, v = (tensor.repeat_interleave(group, dim=2) for tensor in (k, v))
    output = memory_efficient_attention(
        q,
        k,
        v,
        attn_bias=row.block_diagonal_causal,
        p=dropout if module.training else 0.0,
        scale=scaling,
        op=MemoryEfficientAttentionCutlassOp,
    )
    return output, None


def _checked(segments: Segments | None, attention_mask: Tensor | None, query: Tensor) -> Segments:
    """The row's segments, where they cover it and no mask is given; kernels read past the end
    without a word.
    """
    if segments is None or attention_mask is not None:
        raise RuntimeError(
            "packed attention needs a row's cu_seq_lens and no attention mask; "
            "use generate(), or set a stock attention implementation, for anything but packed rows"
        )
    if query.shape[0] != 1 or query.shape[2] != segments.total:
        raise RuntimeError(
            f"packed attention got {query.shape[0]} x {query.shape[2]} tokens, cu_seq_lens says 1 x {segments.total}"
        )
    return segments


def _as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's type, where it is on: rotary embedding gives fp32 queries and keys beside
    half-precision values.

    torch's own attention is cast by autocast; other packages' kernels are not.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


KERNELS = {"sdpa": packed_sdpa, "flash": packed_flash, "xformers": packed_xformers}
for attention, name in IMPLEMENTATIONS.items():
    AttentionInterface.register(name, KERNELS[attention])
    # With no mask function registered the mask would arrive as None silently; this one passes
    # padding on.
    AttentionMaskInterface.register(name, flash_attention_mask)
