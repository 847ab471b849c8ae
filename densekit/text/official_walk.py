"""Which tokens the official code labels: it counts separately tokenised rounds.

The counts decide the labels even where they go wrong (docs/upstream.md, Q1, Q2, Q5 and Q9), so
nothing here looks at character spans. Each template with an official branch walks its own rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from densekit.spec.types import IGNORE_INDEX
from densekit.text.chunks import encode_chunks, tag_positions
from densekit.text.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the counting needs beside the text: `max_length` is the tokenizer's limit in ids."""

    tokenizer: Tokenizer
    has_image: bool
    pad_id: int
    max_length: int

    def count(self, text: str) -> int:
        """Return the number of ids of a text tokenised alone, an image tag counting one."""
        tags = tag_positions(text) if self.has_image else []
        return len(encode_chunks(self.tokenizer, text, tags, semantics="faithful").ids)

    def checked(self, labels: np.ndarray, ids: np.ndarray, counted: int) -> tuple[np.ndarray, bool]:
        """The labels up to what was counted; none at all where the count is not that of the ids."""
        labels[counted:] = IGNORE_INDEX
        matched = counted >= self.max_length or counted == int((ids != self.pad_id).sum())
        if not matched:
            labels[:] = IGNORE_INDEX
        return labels, matched


OfficialLabels = Callable[[Walk, str, np.ndarray], tuple[np.ndarray, bool]]
"""(walk, text, ids [L]) -> the official labels [L] (int64), and False where the whole sample was
masked because the count disagreed ("tokenization mismatch").
"""
