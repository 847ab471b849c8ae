"""Packed attention: one flat row of tokens, causal attention inside each segment, nothing across segments."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

PACKED_SDPA = "densekit_packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal SDPA, segment by segment.

    query [1, H, T, D], key and value [1, Hkv, T, D]; cu_seq_lens_q [S + 1] int32 on the CPU with the
    segment boundaries, 0 first and T last. Returns ([1, T, H, D], None). Raises RuntimeError without
    cu_seq_lens_q: an unsegmented row would let samples see each other.
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        raise RuntimeError(
            "packed attention needs cu_seq_lens_q and attention_mask=None; "
            "use generate(), or set a stock attention implementation, for anything but packed rows"
        )
    lengths = cu_seq_lens_q.diff().tolist()
    # split() has one backward for all segments; slices would each fill a gradient of the whole row with zeros.
    segments = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
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
        for q, k, v in segments
    ]
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
# With no mask function registered the mask would arrive as None silently; this one passes padding on.
AttentionMaskInterface.register(PACKED_SDPA, flash_attention_mask)
