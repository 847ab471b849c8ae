"""Encodes one conversation to ids and labels, faithfully to the official code or with its faults
fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densekit.errors import DataError, UsageError
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN, IMAGE_TOKEN_ID, Semantics
from densekit.text.chunks import encode_chunks, tag_positions
from densekit.text.conversation import alternating_turns, collapse_tags, turn_values
from densekit.text.official_walk import Walk, has_official_branch, official_labels
from densekit.text.templates import Rendered, Span, Turn, get_template
from densekit.text.tokenizers.base import Encoding, Tokenizer

__all__ = [
    "IGNORE_INDEX",
    "IMAGE_TOKEN",
    "IMAGE_TOKEN_ID",
    "EncodedSample",
    "SampleEncoder",
    "Semantics",
]


@dataclass(frozen=True)
class EncodedSample:
    """Ids [L] and labels [L] (int64) of one sample before collation; an image tag is one
    IMAGE_TOKEN_ID.

    Notes: "first_turn_dropped" (it came from gpt), "truncated" (text cut to the maximum),
    "masked_mismatch" (the official count disagreed, all labels ignored), "labels_shifted" (the
    official labels are not those of the answers), "no_labels" (nothing is supervised although
    nothing was masked).
    """

    input_ids: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...]


class SampleEncoder:
    """Encodes conversations with one tokenizer and one template; `max_length` is in ids.

    Raises:
        UsageError: unknown template or semantics, a maximum below 1, or no id that could pad.
    """

    def __init__(
        self, *, tokenizer: Tokenizer, template: str, semantics: Semantics, max_length: int
    ) -> None:
        self._template = get_template(template)
        if semantics not in ("faithful", "fixed"):
            raise UsageError(f"unknown semantics {semantics!r}; known: faithful, fixed")
        if max_length < 1:
            raise UsageError(f"max_length is {max_length}, expected at least 1")
        self._tokenizer = tokenizer
        self._official = semantics == "faithful" and has_official_branch(template)
        # What is in effect: a template the official code has no branch for has nothing to be
        # faithful to.
        self.semantics: Semantics = "faithful" if self._official else "fixed"
        self.max_length = max_length
        self.pad_id: int = _pad_id(tokenizer, template)

    def encode(self, conversations: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        """Encode one conversation for training.

        Raises:
            DataError: a turn is malformed or out of order; for `plain`, not two turns or no tag in the first.
        """
        turns, dropped = self._turns(conversations, has_image=has_image)
        rendered = self._template.render(turns, official=self._official)
        # The official `plain` branch looks for tags in every sample; its tag is there by
        # definition.
        tagged = has_image or self._template.name == "plain"
        encoding = self._ids(rendered, tagged=tagged)
        notes = ["first_turn_dropped"] if dropped else []
        ids = np.array(encoding.ids, dtype=np.int64)
        labels = _span_labels(ids, encoding.offsets, rendered.supervised)
        if not tagged and len(ids) > self.max_length:
            ids, labels = ids[: self.max_length], labels[: self.max_length]
            notes.append("truncated")
        matched = True
        if self._official:
            proper = labels
            walk = Walk(
                template=self._template,
                tokenizer=self._tokenizer,
                has_image=tagged,
                pad_id=self.pad_id,
                max_length=self.max_length,
            )
            labels, matched = official_labels(walk, rendered.text, ids)
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

        Image tags stay where they are, as in the recorded prompts.

        Raises:
            DataError: a turn is malformed or out of order, or there is no human turn.
        """
        return self._prompt(conversations, has_image=has_image).text

    def _prompt(self, conversations: list[dict[str, str]], *, has_image: bool) -> Rendered:
        turns, _ = alternating_turns(conversations)
        if turns and turns[-1][0] == "gpt":
            turns = turns[:-1]
        if not turns:
            raise DataError("a prompt needs a human turn")
        if self._template.name == "plain":
            turns = [("human", IMAGE_TOKEN if has_image else "")]
        return self._template.render(turns, official=self._official, answer=True)

    def _turns(
        self, conversations: list[dict[str, str]], *, has_image: bool
    ) -> tuple[list[Turn], bool]:
        turns: list[Turn]
        if self._official and self._template.name == "plain":
            # The official branch takes the turns as they come and never looks at "from".
            values = [value for _, value in turn_values(conversations)]
            turns = [("human" if i % 2 == 0 else "gpt", value) for i, value in enumerate(values)]
            dropped = False
        else:
            turns, dropped = alternating_turns(conversations)
            if not turns and not self._official:
                raise DataError("no turn is left once the first one, from gpt, is dropped")
        if self._template.name == "plain":
            if len(turns) != 2:
                raise DataError(f"template plain: expected 2 turns, found {len(turns)}")
            if IMAGE_TOKEN not in turns[0][1]:
                raise DataError(f"turn 0: template plain expects {IMAGE_TOKEN} in it")
            turns = [("human", IMAGE_TOKEN), turns[1]]
        if has_image:
            turns = [
                (role, collapse_tags(value) if self._official or role == "human" else value)
                for role, value in turns
            ]
        return turns, dropped

    def _ids(self, rendered: Rendered, *, tagged: bool) -> Encoding:
        tags: list[int] = []
        if tagged:
            # Outside human turns a tag is plain text, except to the official code.
            tags = tag_positions(rendered.text, None if self._official else rendered.human)
        return encode_chunks(self._tokenizer, rendered.text, tags, official=self._official)


def _pad_id(tokenizer: Tokenizer, template: str) -> int:
    reserved = tokenizer.token_id("<|reserved_special_token_0|>") if template == "llama_3" else None
    for candidate in (reserved, tokenizer.unk_id, tokenizer.eos_id):
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
