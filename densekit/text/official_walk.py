"""Reproduces which tokens the official code supervises, by its counting of separately tokenised
rounds.

Source: quirks 1, 2, 5 and 9 of the recorded numbers. The counts decide the labels even where they
go wrong, so nothing here looks at character spans.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN
from densekit.text.chunks import encode_chunks, tag_positions
from densekit.text.templates import Template
from densekit.text.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the counting needs beside the text: `max_length` is the tokenizer's limit in ids."""

    template: Template
    tokenizer: Tokenizer
    has_image: bool
    pad_id: int
    max_length: int

    def count(self, text: str) -> int:
        """Return the number of ids of a text tokenised alone, an image tag counting one."""
        tags = tag_positions(text) if self.has_image else []
        return len(encode_chunks(self.tokenizer, text, tags, official=True).ids)


def _plain(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    labels = ids.copy()
    prefix = encode_chunks(walk.tokenizer, IMAGE_TOKEN, [0], official=True)
    labels[: len(prefix.ids)] = IGNORE_INDEX
    return labels, True


def _v1(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    template = walk.template
    separator = template.human_end + template.assistant
    labels = ids.copy()
    position = 1
    labels[:position] = IGNORE_INDEX
    for index, text_round in enumerate(text.split(template.assistant_end)):
        parts = text_round.split(separator)
        if len(parts) != 2:
            break
        surplus = int(index > 0 and not walk.tokenizer.legacy)
        instruction = walk.count(parts[0] + separator) - 2 - surplus
        labels[position : position + instruction] = IGNORE_INDEX
        position += walk.count(text_round) - surplus
    return _checked(walk, labels, ids, position)


def _llama_3(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    template = walk.template
    end = template.assistant_end
    separator = template.human_end + template.header("gpt", official=True)
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
        instruction = walk.count(parts[0] + separator)
        labels[position : position + instruction] = IGNORE_INDEX
        position += walk.count(text_round) + 1
    return _checked(walk, labels, ids, position)


def _checked(
    walk: Walk, labels: np.ndarray, ids: np.ndarray, counted: int
) -> tuple[np.ndarray, bool]:
    labels[counted:] = IGNORE_INDEX
    matched = counted >= walk.max_length or counted == int((ids != walk.pad_id).sum())
    if not matched:
        labels[:] = IGNORE_INDEX
    return labels, matched


_WALKS: dict[str, Callable[[Walk, str, np.ndarray], tuple[np.ndarray, bool]]] = {
    "plain": _plain,
    "v1": _v1,
    "llama_3": _llama_3,
}


def has_official_branch(template: str) -> bool:
    """Say whether the official code has a working branch for a template."""
    return template in _WALKS


def official_labels(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the official labels [L] (int64) of ids [L], and False where the whole sample was
    masked because the count disagreed ("tokenization mismatch").
    """
    return _WALKS[walk.template.name](walk, text, ids)
