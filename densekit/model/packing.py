"""Where the sequences of a micro-batch lie, in the form each attention kernel asks for."""

import itertools
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class PackedSequences:
    """The S sequences of a micro-batch of T tokens, from cu_seqlens [S + 1]: 0 first, T last.

    Made once per forward pass and handed through the layers: reading lengths from a GPU, or copying
    cu_seqlens to it, in every layer would wait for the GPU in every layer.
    """

    def __init__(self, cu_seqlens: Tensor, device: torch.device) -> None:
        self.device = device
        self.lengths = [end - start for start, end in itertools.pairwise(cu_seqlens.tolist())]
        self.total = sum(self.lengths)
        self.longest = max(self.lengths)
        self._cu_seqlens = cu_seqlens

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """int32 [S + 1] on the device of the tokens, for flash-attn."""
        return self._cu_seqlens.to(self.device, torch.int32)

    @cached_property
    def block_diagonal_causal(self) -> Any:
        """The attention mask for xformers; it holds cu_seqlens, never a matrix."""
        from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask

        # Without `device` xformers puts cu_seqlens on a GPU of its own choice.
        return BlockDiagonalCausalMask.from_seqlens(self.lengths, device=self.device)
