"""The pass over the entries: what is wrong with each, how they are composed, how long they are."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from densekit.data.annotation_file import EntryScan
from densekit.data.doctor.findings import Findings
from densekit.data.doctor.subject import Subject
from densekit.data.doctor.tokens import EntryText
from densekit.data.entries import Conversation, EntryError, read_conversation
from densekit.errors import DataError
from densekit.spec.types import IMAGE_TOKEN
from densekit.text.template import Template
from densekit.text.templates import get_template

SPECIAL = ("<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>")
"""Spelt out in a text, a tokenizer may read them as the end of a turn."""


@dataclass(kw_only=True)
class Entries:
    """What the pass found besides findings."""

    count: int = 0
    """Entries of the file, the refused ones too."""
    text_only: int = 0
    turns: Counter[int] = field(default_factory=Counter)
    """Entries by number of turns."""
    words: Counter[int] = field(default_factory=Counter)
    """Entries by number of words over all turns."""
    images: dict[str, list[int]] = field(default_factory=dict)
    """Entries that name each image, as the file writes it."""
    texts: list[EntryText] = field(default_factory=list)
    """Of the entries that are conversations."""
    wordy: dict[int, int] = field(default_factory=dict)
    """Words of the entries that have more words and image tokens than the maximum length."""


def examine_entries(subject: Subject, file: BinaryIO, findings: Findings) -> tuple[Entries, str]:
    """Look at every entry of the opened annotation file; returns the SHA-256 of its bytes too.

    Where the file breaks off that is a finding, and what is in front of it is looked at.
    """
    found = Entries()
    template = get_template(subject.template) if subject.template else None
    ids: dict[str, int] = {}
    contents: dict[int, int] = {}
    scan = EntryScan(subject.annotations, file)
    try:
        for index, entry in enumerate(scan):
            found.count += 1
            try:
                conversation = read_conversation(entry.value)
            except EntryError as error:
                findings.add(error.kind, f"entry {index}", str(error))
                continue
            _compare(entry.value, conversation, index, ids, contents, findings)
            for kind, detail in _oddities(subject, template, conversation):
                findings.add(kind, f"entry {index}", detail)
            _measure(subject, index, conversation, found)
            raw = None if scan.in_utf8 else entry.raw
            found.texts.append(
                EntryText(index=index, start=entry.start, size=len(entry.raw), raw=raw)
            )
    except DataError as error:
        behind = f"; {found.count} entries in front of it were read" if found.count else ""
        findings.add("annotations", str(subject.annotations), f"{error}{behind}")
    if scan.form:
        findings.add("annotations_form", str(subject.annotations), scan.form)
    return found, scan.sha256


def _measure(subject: Subject, index: int, conversation: Conversation, found: Entries) -> None:
    image_tokens = 0
    if conversation.image is None:
        found.text_only += 1
    else:
        image_tokens = subject.image_tokens
        found.images.setdefault(conversation.image, []).append(index)
    words = sum(len(text.split()) for _, text in conversation.turns)
    found.turns[len(conversation.turns)] += 1
    found.words[words] += 1
    if subject.max_length is not None and words + image_tokens > subject.max_length:
        found.wordy[index] = words


def histogram(values: Counter[int]) -> list[tuple[int, int, int]]:
    """(from, to, how many) in ranges that double: 0, 1, 2-3, 4-7 and so on; empty ones are left
    out.
    """
    ranges: Counter[int] = Counter()
    for value, count in values.items():
        ranges[value.bit_length()] += count
    return [(1 << bits >> 1, max((1 << bits) - 1, 0), ranges[bits]) for bits in sorted(ranges)]


def _compare(
    entry: Mapping[str, Any],
    conversation: Conversation,
    index: int,
    ids: dict[str, int],
    contents: dict[int, int],
    findings: Findings,
) -> None:
    place = f"entry {index}"
    if entry.get("id") is None:
        findings.add("id_missing", place)
    else:
        entry_id = str(entry["id"])
        first = ids.setdefault(entry_id, index)
        if first != index:
            findings.add("duplicate_id", place, f"{entry_id[:80]}, as entry {first}")
    content = hash((conversation.image, conversation.turns))
    first = contents.setdefault(content, index)
    if first != index:
        findings.add("duplicate_entry", place, f"as entry {first}")


def _oddities(
    subject: Subject, template: Template | None, conversation: Conversation
) -> Iterator[tuple[str, str]]:
    """(kind, detail) of everything about one conversation."""
    yield from _shape(subject, template, conversation)
    yield from _tags(subject, conversation)
    yield from _texts(conversation.turns)
    if conversation.image is not None:
        yield from _path(conversation.image)
    if conversation.form != "llava":
        yield "other_roles", conversation.form


def _shape(
    subject: Subject, template: Template | None, conversation: Conversation
) -> Iterator[tuple[str, str]]:
    for number, (_, text) in enumerate(conversation.turns):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            yield "surrogate", f"turn {number}, character {error.start}"
            return
    if not any(text.split(None, 1) for _, text in conversation.turns):
        yield "no_words", ""
    if template is not None:
        semantics = "fixed" if template.official_labels is None else subject.semantics
        try:
            template.turns(
                conversation.as_turns(),
                has_image=conversation.image is not None,
                semantics=semantics,
            )
        except DataError as error:
            yield "template_shape", str(error)
    if conversation.turns[0][0] == "gpt":
        yield "first_turn_dropped", ""


def _tags(subject: Subject, conversation: Conversation) -> Iterator[tuple[str, str]]:
    if conversation.image is None:
        return
    if not conversation.tagged:
        yield ("tag_missing" if subject.template == "plain" else "tag_absent"), conversation.image
    for number, (speaker, text) in enumerate(conversation.turns):
        if IMAGE_TOKEN not in text:
            continue
        if text.count(IMAGE_TOKEN) > 1:
            yield "tag_repeated", f"turn {number}: {text.count(IMAGE_TOKEN)} tags"
        elif speaker == "gpt":
            yield "tag_in_answer", f"turn {number}"
        elif not text.lstrip().startswith(IMAGE_TOKEN):
            yield "tag_moved", f"turn {number}"


def _texts(turns: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for number, (speaker, text) in enumerate(turns):
        if not text.strip():
            yield ("empty_answer" if speaker == "gpt" else "empty_question"), f"turn {number}"
        if spelt := next((token for token in SPECIAL if token in text), None):
            yield "special_token", f"turn {number}: {spelt}"
        if "\ufffd" in text or "\0" in text:
            yield "damaged_text", f"turn {number}"
    if turns[-1][0] == "human":
        yield "no_answer", f"turn {len(turns) - 1}"


def _path(image: str) -> Iterator[tuple[str, str]]:
    if image.startswith("/"):
        yield "absolute_path", image
    elif "://" not in image and any(part in ("", ".", "..") for part in image.split("/")):
        yield "path_form", image
