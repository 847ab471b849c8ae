"""xformers with a block-diagonal causal mask, on its cutlass kernel: what a V100 has.

Left to choose, xformers would run another kernel on each GPU. cutlass neither broadcasts KV heads
nor has a backward pass for its own grouped form, so they are repeated.
"""

from torch import Tensor

from densekit.model.attention.packed import as_autocast
from densekit.model.packing import PackedSequences

NAME = "blocks"


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
    from xformers.ops import MemoryEfficientAttentionCutlassOp, memory_efficient_attention

    # [1, T, heads, D]
    q, k, v = (tensor.transpose(1, 2) for tensor in as_autocast(query, key, value))
    if (group := q.shape[2] // k.shape[2]) > 1:
        k, v = (tensor.repeat_interleave(group, dim=2) for tensor in (k, v))
    output: Tensor = memory_efficient_attention(
        q,
        k,
        v,
        attn_bias=sequences.block_diagonal_causal(window),
        p=dropout,
        scale=scaling,
        op=MemoryEfficientAttentionCutlassOp,
    )
    return output
