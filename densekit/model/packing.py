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
        self._block_masks: dict[int | None, Any] = {}
        self._bands: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """int32 [S + 1] on the device of the tokens, for flash-attn."""
        return self._cu_seqlens.to(self.device, torch.int32)

    def block_diagonal_causal(self, window: int | None) -> Any:
        """The attention mask for xformers; it holds cu_seqlens, never a matrix."""
        if window not in self._block_masks:
            from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask

            # Without `device` xformers puts cu_seqlens on a GPU of its own choice.
            mask = BlockDiagonalCausalMask.from_seqlens(self.lengths, device=self.device)
            self._block_masks[window] = (
                mask if window is None else mask.make_local_attention(window)
            )
        return self._block_masks[window]

    def windowed_causal(self, window: int | None) -> list[Tensor | None]:
        """For each sequence, the matrix [L, L] of what a query may see; None where that is all up
        to itself.
        """
        if window is None:
            return [None] * len(self.lengths)
        return [self._band(length, window) if length > window else None for length in self.lengths]

    def _band(self, length: int, window: int) -> Tensor:
        if (length, window) not in self._bands:
            places = torch.arange(length, device=self.device)
            distance = places[:, None] - places[None, :]
            self._bands[length, window] = (distance >= 0) & (distance < window)
        return self._bands[length, window]
