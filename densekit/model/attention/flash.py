"""flash-attn varlen: all sequences in one call, KV heads shared inside the kernel."""

import torch
from torch import Tensor

from densekit.model.attention.packed import as_autocast
from densekit.model.packing import PackedSequences

NAME = "varlen"
"""Without "flash": transformers would take it for its own, and may put another in its place."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequences: PackedSequences,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """[1, H, T, D] and twice [1, Hkv, T, D] -> [1, T, H, D]."""
    from flash_attn import flash_attn_varlen_func

    # [T, heads, D]
    q, k, v = (tensor[0].transpose(0, 1) for tensor in as_autocast(query, key, value))
    output: Tensor = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=sequences.cu_seqlens,
        cu_seqlens_k=sequences.cu_seqlens,
        max_seqlen_q=sequences.longest,
        max_seqlen_k=sequences.longest,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
        # How many keys before and after its own a query sees; -1: no limit.
        window_size=(-1, -1) if window is None else (window - 1, 0),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return output[None]
