"""torch's own attention, sequence by sequence: exact, everywhere, no package needed."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from densekit.model.packing import PackedSequences

NAME = "sdpa"
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, the default on an H100: its backward takes the gradient of the output for
[1, T, H, D] in memory whatever its strides say (torch 2.11.0+cu130, measured on 2026-11-26: a
relative error of 1.4 in dq, dk and dv for a gradient that lies as [1, H, T, D]).
"""


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
    # split() has one backward for all sequences; slices would each fill a gradient of the whole
    # micro-batch with zeros.
    parts = zip(
        *(tensor.split(sequences.lengths, dim=2) for tensor in (query, key, value)), strict=True
    )
    with sdpa_kernel(BACKENDS):
        outputs = [
            F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            ).transpose(1, 2)
            for (q, k, v), mask in zip(parts, sequences.windowed_causal(window), strict=True)
        ]
    return torch.cat(outputs, dim=1)
