"""Encodes one conversation to ids and labels, faithfully to the official code or with its faults
fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densekit.errors import UsageError
from densekit.spec.types import IGNORE_INDEX, Semantics
from densekit.text.answers import end_tokens
from densekit.text.chunks import encode_chunks, tag_positions
from densekit.text.official_walk import Walk
from densekit.text.template import Rendered, Span
from densekit.text.templates import get_template
from densekit.text.tokenizers.base import Encoding, Tokenizer


@dataclass(frozen=True)
class EncodedSample:
    """Ids [L] and labels [L] (int64) of one sample before collation; an image tag is one
    IMAGE_TOKEN_ID.

    Notes: "first_turn_dropped" (it came from gpt), "truncated" (text cut to the maximum),
    "masked_mismatch" (the official count disagreed, all labels ignored), "labels_shifted" (the
    official labels are not those of the answers), "no_labels" (nothing has a label although nothing
    was masked).
    """

    input_ids: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...]


class SampleEncoder:
    """Encodes conversations with one tokenizer and one template; `max_length` is in ids.

    Raises:
        UsageError: unknown template, a maximum below 1, or no id that could pad.
    """

    def __init__(
        self, *, tokenizer: Tokenizer, template: str, semantics: Semantics, max_length: int
    ) -> None:
        self._template = get_template(template)
        if max_length < 1:
            raise UsageError(f"max_length is {max_length}, expected at least 1")
        self._tokenizer = tokenizer
        # What is in effect: a template the official code has no branch for has nothing to be
        # faithful to.
        official = self._template.official_labels is not None
        self.semantics: Semantics = semantics if official else "fixed"
        self.max_length = max_length
        self.pad_id: int = _pad_id(tokenizer, self._template.pad_token)
        self.end_tokens = end_tokens(tokenizer, template)

    def encode(self, conversations: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        """Encode one conversation for training.

        Raises:
            DataError: a turn is malformed or out of order, or not what the template takes.
        """
        turns, dropped = self._template.turns(
            conversations, has_image=has_image, semantics=self.semantics
        )
        rendered = self._template.render(turns, self.semantics)
        tagged = has_image or self._template.always_tagged
        encoding = self._ids(rendered, tagged=tagged)
        notes = ["first_turn_dropped"] if dropped else []
        ids = np.array(encoding.ids, dtype=np.int64)
        labels = _span_labels(ids, encoding.offsets, rendered.labelled)
        if not tagged and len(ids) > self.max_length:
            ids, labels = ids[: self.max_length], labels[: self.max_length]
            notes.append("truncated")
        matched = True
        if self.semantics == "faithful":
            proper = labels
            labels, matched = self._official_labels(rendered.text, ids, tagged=tagged)
            if not matched:
                notes.append("masked_mismatch")
            elif (labels != IGNORE_INDEX).any() and not np.array_equal(labels, proper):
                notes.append("labels_shifted")
        if matched and not (labels != IGNORE_INDEX).any():
            notes.append("no_labels")
        return EncodedSample(ids, labels, tuple(notes))

    def encode_prompt(self, conversations: list[dict[str, str]], *, has_image: bool) -> np.ndarray:
        """Return the ids [L] (int64) of `prompt`, with IMAGE_TOKEN_ID for each tag if `has_image`.

        Raises:
            DataError: as `prompt`.
        """
        rendered = self._prompt(conversations, has_image=has_image)
        return np.array(self._ids(rendered, tagged=has_image).ids, dtype=np.int64)

    def prompt(self, conversations: list[dict[str, str]], *, has_image: bool) -> str:
        """Return the text up to the answer that is to be generated; a last turn from gpt is left
        out.

        Raises:
            DataError: a turn is malformed or out of order, or there is no human turn.
        """
        return self._prompt(conversations, has_image=has_image).text

    def _prompt(self, conversations: list[dict[str, str]], *, has_image: bool) -> Rendered:
        turns = self._template.prompt_turns(conversations, has_image=has_image)
        return self._template.render(turns, self.semantics, answer=True)

    def _official_labels(
        self, text: str, ids: np.ndarray, *, tagged: bool
    ) -> tuple[np.ndarray, bool]:
        walk = Walk(
            tokenizer=self._tokenizer,
            has_image=tagged,
            pad_id=self.pad_id,
            max_length=self.max_length,
        )
        assert self._template.official_labels is not None
        return self._template.official_labels(walk, text, ids)

    def _ids(self, rendered: Rendered, *, tagged: bool) -> Encoding:
        tags: list[int] = []
        if tagged:
            # Outside human turns a tag is plain text, except to the official code.
            within = None if self.semantics == "faithful" else rendered.human
            tags = tag_positions(rendered.text, within)
        return encode_chunks(self._tokenizer, rendered.text, tags, semantics=self.semantics)


def _pad_id(tokenizer: Tokenizer, pad_token: str | None) -> int:
    own = None if pad_token is None else tokenizer.token_id(pad_token)
    for candidate in (own, tokenizer.unk_id, tokenizer.eos_id):
        if candidate is not None:
            return candidate
    raise UsageError("the tokenizer has neither an unknown nor an end token to pad with")


def _span_labels(ids: np.ndarray, offsets: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    chosen = np.zeros(len(ids), dtype=bool)
    for start, end in spans:
        # A piece without characters (a dummy prefix) belongs to the text that follows it.
        inside = np.where(starts == ends, starts >= start, ends > start)
        chosen |= (starts < end) & inside
    return np.where(chosen, ids, IGNORE_INDEX)
