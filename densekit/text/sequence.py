"""Turns an encoded sample into the sequence the language model sees, image slots included."""

from dataclasses import dataclass

import numpy as np

from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID, Semantics
from densekit.text.encode import EncodedSample


@dataclass(frozen=True)
class ModelSequence:
    """One sample as the model sees it, not padded.

    `input_ids` [T] (int64) holds IMAGE_TOKEN_ID once per feature token, `labels` [T] (int64)
    ignores those slots.
    """

    input_ids: np.ndarray
    labels: np.ndarray

    @property
    def label_count(self) -> int:
        """Label positions: what is left of the labels after the shift by one."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())


def model_sequence(
    sample: EncodedSample, *, pad_id: int, image_tokens: int, max_length: int, semantics: Semantics
) -> ModelSequence:
    """Cut to max_length ids (an image counting one), expand the images, cut to max_length again
    (docs/upstream.md, Q4).

    Faithful semantics also drop every id equal to pad_id after the first cut: the attention mask is
    ids != pad_id, and masked ids leave the sequence (docs/upstream.md, Q3).
    """
    ids, labels = sample.input_ids[:max_length], sample.labels[:max_length]
    if semantics == "faithful":
        kept = ids != pad_id
        ids, labels = ids[kept], labels[kept]
    tags = ids == IMAGE_TOKEN_ID
    repeats = np.where(tags, image_tokens, 1)
    labels = np.where(tags, IGNORE_INDEX, labels)
    return ModelSequence(
        np.repeat(ids, repeats)[:max_length], np.repeat(labels, repeats)[:max_length]
    )
