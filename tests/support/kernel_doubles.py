"""Stand-ins for flash-attn and xformers on a CPU: their documented signatures and input rules over
plain matrices.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def allowed(lengths: Sequence[int], window: int | None = None) -> Tensor:
    """What a micro-batch's mask means, bool [T, T]: same sequence, not later, and less than a
    window before.
    """
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = (segment[:, None] == segment) & torch.ones(
        len(segment), len(segment), dtype=torch.bool
    ).tril()
    return seen if window is None else seen.triu(1 - window)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """softmax(q k^T * scale + bias) v over [T, H, D], written out."""
    scores = torch.einsum("thd,shd->hts", q, k) * (scale or q.shape[-1] ** -0.5)
    return torch.einsum("hts,shd->thd", (scores + bias).softmax(-1), v)


@dataclass
class Seen:
    """What the stand-ins were given."""

    flash: list[dict[str, Any]] = field(default_factory=list)
    xformers: list[dict[str, Any]] = field(default_factory=list)
    masks: int = 0


def install(modules: dict[str, Any]) -> Seen:
    """Put the stand-ins into a table of modules such as sys.modules; returns what they see."""
    seen = Seen()

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        deterministic: bool = False,
    ) -> Tensor:
        lengths = cu_seqlens_q.diff().tolist()
        assert (
            cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
            and cu_seqlens_q.device == q.device
        )
        assert q.ndim == k.ndim == v.ndim == 3 and q.shape[1] % k.shape[1] == 0
        assert q.dtype == k.dtype == v.dtype and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        assert max_seqlen_q == max_seqlen_k == max(lengths) and causal and type(max_seqlen_q) is int
        seen.flash.append(
            {
                "dtype": q.dtype,
                "dropout": dropout_p,
                "deterministic": deterministic,
                "cu": cu_seqlens_q,
            }
        )
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
        left, right = window_size
        assert right == (0 if left >= 0 else -1)
        mask = allowed(lengths, left + 1 if left >= 0 else None)
        return dense_attention(q, k, v, bias_of(mask, q.dtype), softmax_scale)

    class BlockDiagonalCausalMask:
        def __init__(
            self, lengths: list[int], device: torch.device, window: int | None = None
        ) -> None:
            self.lengths, self.device, self.window = lengths, device, window

        def make_local_attention(self, window_size: int) -> "BlockDiagonalCausalMask":
            return BlockDiagonalCausalMask(self.lengths, self.device, window_size)

        @classmethod
        def from_seqlens(
            cls,
            q_seqlen: Sequence[int],
            kv_seqlen: Sequence[int] | None = None,
            *,
            device: torch.device | None = None,
        ) -> "BlockDiagonalCausalMask":
            assert (
                device is not None
                and kv_seqlen is None
                and all(type(length) is int for length in q_seqlen)
            )
            seen.masks += 1
            return cls(list(q_seqlen), device)

    def memory_efficient_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_bias: BlockDiagonalCausalMask,
        p: float = 0.0,
        scale: float | None = None,
        *,
        op: Any = None,
    ) -> Tensor:
        assert query.shape == key.shape == value.shape and query.ndim == 4 and query.shape[0] == 1
        assert query.dtype == key.dtype == value.dtype and attn_bias.device == query.device
        assert (
            query.stride(-1) == key.stride(-1) == value.stride(-1) == 1 and query.shape[-1] % 8 == 0
        )
        assert op == "cutlass"
        seen.xformers.append({"dtype": query.dtype, "dropout": p})
        bias = bias_of(allowed(attn_bias.lengths, attn_bias.window), query.dtype)
        return dense_attention(query[0], key[0], value[0], bias, scale)[None]

    def module(name: str, **contents: Any) -> None:
        modules[name] = ModuleType(name)
        vars(modules[name]).update(contents)

    module("flash_attn", flash_attn_varlen_func=flash_attn_varlen_func)
    for name in ("xformers", "xformers.ops.fmha"):
        module(name)
    module(
        "xformers.ops",
        memory_efficient_attention=memory_efficient_attention,
        MemoryEfficientAttentionCutlassOp="cutlass",
    )
    module("xformers.ops.fmha.attn_bias", BlockDiagonalCausalMask=BlockDiagonalCausalMask)
    return seen


def bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a position may be seen, -inf where not."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -torch.inf)


def install_for_good() -> Seen:
    """Into sys.modules of this process, which a test forked."""
    return install(sys.modules)  # type: ignore[arg-type]
