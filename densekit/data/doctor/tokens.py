"""Lengths in tokens: which conversations are cut off, and which teach nothing behind the cut."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densekit.data.doctor.subject import Subject
from densekit.errors import DataError
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID, Semantics
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer

Item = tuple[int, list[dict[str, str]], bool]
"""(index of the entry, turns, whether it has an image)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One conversation, its image tokens included, before it is cut."""

    length: int
    labels: int
    """Label positions that are left in front of the cut."""
    masked: bool
    """The official walk miscounted, so that all labels are masked."""


def token_counter(
    tokenizer: Path, template: str, semantics: Semantics, max_length: int, image_tokens: int
) -> Callable[[Item], Tokens | None]:
    """A function that counts the tokens of a conversation; None for one that is refused.

    Raises DataError or UsageError for a tokenizer that cannot be used.
    """
    encoder = SampleEncoder(
        tokenizer=load_tokenizer(tokenizer),
        template=template,
        semantics=semantics,
        max_length=max_length,
    )

    def count(item: Item) -> Tokens | None:
        _, turns, has_image = item
        try:
            sample = encoder.encode(turns, has_image=has_image)
        except DataError:
            return None
        tags = sample.input_ids == IMAGE_TOKEN_ID
        extra = np.cumsum(tags) * max(image_tokens - 1, 0)
        places = np.arange(len(tags)) + extra
        kept = (sample.labels != IGNORE_INDEX) & (places < max_length)
        cut = "truncated" in sample.notes
        length = int(places[-1]) + 1 if len(places) else 0
        return Tokens(
            length=length + int(cut),
            labels=int(kept.sum()),
            masked="masked_mismatch" in sample.notes,
        )

    return count


def counter_arguments(subject: Subject) -> tuple[Path, str, Semantics, int, int] | None:
    """What token_counter takes for a subject; None where its tokens cannot be counted."""
    if subject.tokenizer is None or subject.template is None or subject.max_length is None:
        return None
    return (
        subject.tokenizer,
        subject.template,
        subject.semantics,
        subject.max_length,
        subject.image_tokens,
    )
