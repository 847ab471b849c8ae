"""Where the segments of a packed row lie, in the form each attention kernel asks for."""

import itertools
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class Segments:
    """The segments of one row of T tokens, from cu_seq_lens [S + 1]: 0 first, T last.

    Made once per row and handed through the layers: reading lengths from a GPU, or copying
    boundaries to it, in every layer would wait for the GPU in every layer.
    """

    def __init__(self, cu_seq_lens: Tensor, device: torch.device) -> None:
        boundaries = cu_seq_lens.tolist()
        self.device = device
        self.lengths = [b - a for a, b in itertools.pairwise(boundaries)]
        self.total = sum(self.lengths)
        self.longest = max(self.lengths)
        self._cu_seq_lens = cu_seq_lens

    @cached_property
    def boundaries(self) -> Tensor:
        """int32 [S + 1] on the row's device, for flash-attn."""
        return self._cu_seq_lens.to(self.device, torch.int32)

    @cached_property
    def block_diagonal_causal(self) -> Any:
        """The row's mask for xformers; it holds boundaries, never a matrix."""
        from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask

        # Without `device` xformers puts the boundaries on a GPU of its own choice.
        return BlockDiagonalCausalMask.from_seqlens(self.lengths, device=self.device)
