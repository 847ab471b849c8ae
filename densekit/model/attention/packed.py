"""The interface between transformers and a kernel: every call is one micro-batch, or an error."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from densekit.errors import DataError
from densekit.model.packing import PackedSequences

Attend = Callable[
    [Tensor, Tensor, Tensor, PackedSequences, float, float | None, int | None], Tensor
]
"""(query, key, value, sequences, dropout, scaling, window) -> output; shapes and window as in the
package's text.
"""


class PackedAttention:
    """One kernel under a name of transformers' attention interface.

    What a layer of transformers hands over is named in `__call__`, and nothing else is taken.
    Raises DataError for an argument that no kernel computes with (softcap, sinks, a position bias),
    RuntimeError for a call without `sequences` or with a mask: samples would see each other.
    """

    def __init__(self, name: str, attend: Attend) -> None:
        self.name, self.attend = f"densekit_packed_{name}", attend
        AttentionInterface.register(self.name, self)
        # With no mask function registered the mask would arrive as None silently; this one passes
        # padding on.
        AttentionMaskInterface.register(self.name, flash_attention_mask)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sequences: PackedSequences | None = None,
        sliding_window: int | None = None,
        is_causal: bool | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_router_logits: bool | None = None,
        **others: object,
    ) -> tuple[Tensor, None]:
        """What a layer of transformers calls.

        sliding_window: as transformers counts it, a query sees itself and the window - 1 keys
        before it. Of no matter here: `position_ids`, because query and key are rotated before;
        `use_cache`, because a micro-batch has no cache; `output_router_logits`, because experts
        come after attention.
        """
        if sequences is None or attention_mask is not None:
            raise RuntimeError(
                "packed attention needs the cu_seqlens of a micro-batch and no attention mask; use "
                "generate(), or set a stock attention implementation, for padded batches"
            )
        refused = {name for name, given in others.items() if given is not None}
        if is_causal is False or not getattr(module, "is_causal", True):
            refused.add("is_causal=False")
        if output_attentions:
            refused.add("output_attentions")
        if refused:
            raise DataError(
                f"{type(module).__name__} gives its attention {', '.join(sorted(refused))}, which "
                "no kernel for packed micro-batches computes with; choose a language model of "
                "docs/architectures.md"
            )
        # Kernels read past the end without a word.
        if query.shape[0] != 1 or query.shape[2] != sequences.total:
            raise RuntimeError(
                f"packed attention got {query.shape[0]} x {query.shape[2]} tokens, "
                f"cu_seqlens says 1 x {sequences.total}"
            )
        dropout = dropout if module.training else 0.0
        # A window that no sequence is longer than hides nothing.
        if sliding_window is not None and sliding_window >= sequences.longest:
            sliding_window = None
        return self.attend(query, key, value, sequences, dropout, scaling, sliding_window), None


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype, where it is on: rotary embedding gives fp32 queries and keys beside
    half-precision values.

    torch's own attention is cast by autocast; other packages' kernels are not.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
