"""Lengths in tokens: which conversations are cut off, and which teach nothing behind the cut."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from densekit.data.annotation_file import parse_entry
from densekit.data.doctor.subject import Subject
from densekit.data.entries import read_conversation
from densekit.data.sample_totals import Counting
from densekit.errors import DataError
from densekit.text.encode import SampleEncoder
from densekit.text.sequence import model_sequence
from densekit.text.tokenizers.base import load_tokenizer

UNCUT = 1 << 30
"""A maximum that nothing reaches."""


@dataclass(frozen=True, kw_only=True)
class EntryText:
    """Where the JSON text of an entry is."""

    index: int
    start: int
    """Its first byte in the file."""
    size: int
    raw: bytes | None = None
    """The text itself, of a file in another encoding than UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One conversation, its image's tokens included."""

    length: int
    """Before it is cut."""
    labels: int
    """Label positions that are left once it is cut and shifted by one."""
    masked: bool
    """The official walk miscounted, so that all labels are masked."""


def counting_of(subject: Subject) -> Counting | None:
    """What counting a subject's tokens takes; None where they cannot be counted."""
    if subject.tokenizer is None or subject.template is None or subject.max_length is None:
        return None
    sized = subject.sized
    return Counting(
        annotations=subject.annotations,
        tokenizer=subject.tokenizer,
        template=subject.template,
        semantics=subject.semantics,
        max_length=subject.max_length,
        image_tokens=sized.layout.max_tokens if sized else subject.image_tokens or 1,
        sized=sized,
    )


def token_counter(counting: Counting) -> Callable[[EntryText], Tokens | None]:
    """A function that counts the tokens of an entry; None for one that is refused.

    Raises DataError or UsageError for a tokenizer that cannot be used, OSError for the file.
    """
    tokenizer = load_tokenizer(counting.tokenizer)

    def encoder(max_length: int) -> SampleEncoder:
        return SampleEncoder(
            tokenizer=tokenizer,
            template=counting.template,
            semantics=counting.semantics,
            max_length=max_length,
        )

    cut, uncut = encoder(counting.max_length), encoder(UNCUT)
    file = counting.annotations.open("rb")

    def count(text: EntryText) -> Tokens | None:
        raw = text.raw if text.raw is not None else os.pread(file.fileno(), text.size, text.start)
        try:
            conversation = read_conversation(parse_entry(raw))
            has_image = conversation.image is not None
            sized = counting.sized
            tokens = counting.image_tokens if sized is None else sized.of(conversation.image)
            sample = cut.encode(conversation.as_turns(), has_image=has_image)
            whole = sample
            if "truncated" in sample.notes:
                whole = uncut.encode(conversation.as_turns(), has_image=has_image)
        except (DataError, ValueError):
            return None
        sequences = [
            model_sequence(
                encoded,
                pad_id=cut.pad_id,
                image_tokens=tokens,
                max_length=max_length,
                semantics=cut.semantics,
            )
            for encoded, max_length in ((whole, UNCUT), (sample, counting.max_length))
        ]
        return Tokens(
            length=len(sequences[0].input_ids),
            labels=sequences[1].label_count,
            masked="masked_mismatch" in sample.notes,
        )

    return count
