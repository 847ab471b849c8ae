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


def labels_of_pairs(
    walk: Walk, text: str, ids: np.ndarray, *, end: str, separator: str, end_tokens: int
) -> tuple[np.ndarray, bool]:
    """Two turns make a round, each turn closed by `end`; the answer follows `separator`.

    `end_tokens`: what is added to each round's count for its end token, which splitting took away.
    """
    pieces = text.split(end)
    # The system turn belongs to the first round, and the text after the last end token is a piece
    # too.
    rounds = [
        end.join(pieces[:3]),
        *(end.join(pieces[i : i + 2]) for i in range(3, len(pieces), 2)),
    ]
    labels = ids.copy()
    position = 0
    for text_round in rounds:
        parts = text_round.split(separator)
        if len(parts) != 2:
            break
        instruction = walk.count(parts[0] + separator) - 1 + end_tokens
        labels[position : position + instruction] = IGNORE_INDEX
        position += walk.count(text_round) + end_tokens
    return walk.checked(labels, ids, position)


OfficialLabels = Callable[[Walk, str, np.ndarray], tuple[np.ndarray, bool]]
"""(walk, text, ids [L]) -> the official labels [L] (int64), and False where the whole sample was
masked because the count disagreed ("tokenization mismatch").
"""
