"""One entry of an annotation file as a conversation, whichever of the known forms it has; and every
reason to refuse one, by its kind.

LLaVA's form is `conversations` of {"from": "human" or "gpt", "value": text} and `image`, a path.
ShareGPT's relatives name the speakers otherwise. OpenAI's form is `messages` of {"role", "content"}
where the content is a text, or a list of parts of which one may be an image. What is legal follows
the official code (docs/upstream.md); what is legal there but nearly always a mistake is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from densekit.errors import DataError
from densekit.files.json_files import json_kind
from densekit.spec.types import IMAGE_TOKEN

Form = Literal["llava", "sharegpt", "messages"]
ROLES = {"user": "human", "assistant": "gpt", "chatgpt": "gpt", "bing": "gpt", "model": "gpt"}
"""Who speaks in files of ShareGPT's relatives, of OpenAI's form and of others."""
SYSTEM = (
    "the template has its system prompt; remove the turn, or put its text into the first human turn"
)


class EntryError(DataError):
    """An entry that cannot be trained on; the message does not say which."""

    def __init__(self, kind: str, message: str) -> None:
        """`kind`: name of a kind of finding (densekit.data.doctor.kinds)."""
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """An entry in one form."""

    turns: tuple[tuple[str, str], ...]
    """(speaker, text): speakers are human and gpt, and alternate; gpt may open."""
    image: str | None
    """A path relative to the image folder; None for a text-only entry."""
    form: Form
    """What it was read from."""

    @property
    def tagged(self) -> bool:
        """Whether an image tag occurs in any turn."""
        return any(IMAGE_TOKEN in text for _, text in self.turns)

    def as_turns(self) -> list[dict[str, str]]:
        """The turns as LLaVA writes them."""
        return [{"from": speaker, "value": text} for speaker, text in self.turns]


def read_conversation(entry: object) -> Conversation:
    """The conversation of an entry. Raises EntryError."""
    if not isinstance(entry, Mapping):
        raise EntryError(
            "entry_form",
            f"is {json_kind(entry)}; an object with 'conversations' is needed",
        )
    _check_fields(entry)
    image = _image(entry)
    form: Form
    turns: list[tuple[str, str]]
    if isinstance(entry.get("conversations"), list) and entry["conversations"]:
        raw = entry["conversations"]
        turns, named, inside = _read_turns(raw)
        form = "messages" if any("role" in turn for turn in raw) else "llava"
        if form == "llava" and named:
            form = "sharegpt"
    elif isinstance(entry.get("messages"), list) and entry["messages"]:
        turns, _, inside = _read_turns(entry["messages"])
        form = "messages"
    else:
        field = "messages" if entry.get("messages") else "conversations"
        what = f"'{field}' is {json_kind(entry[field])}" if entry.get(field) else f"no '{field}'"
        raise EntryError("no_turns", f"{what}; give a list of turns, human first")
    if inside is not None:
        if image not in (None, inside):
            raise EntryError("several_images", f"'image' and a message name two images; {_SPLIT}")
        image = inside
    _check_tags(turns, image)
    _check_order(turns)
    return Conversation(turns=tuple(turns), image=image, form=form)


UNHEARD = ("video", "videos", "audio", "audios", "sound", "sounds", "speech")
"""Fields in which files name videos and sounds."""
NOT_LEARNT = {"weight": 1, "loss": True, "train": True}
"""Fields of a turn by which other programs learn less of it, or nothing; and what changes
nothing.
"""
NOT_READ = (*UNHEARD, "system", "tools")
"""Fields of an entry that are refused unless they are empty."""
CALLS = ("tool_calls", "function_call")
"""Fields of a turn that answers with something else than its text."""


def _check_fields(entry: Mapping[str, Any]) -> None:
    """Refuse what an entry holds beside its one conversation and its one image, and other programs
    learn from. Empty fields are there because other rows of the same table have them.
    """
    for field in UNHEARD:
        if entry.get(field):
            raise EntryError(
                "video",
                f"'{field}' is not supported (the official code cannot train on it either); "
                "remove the entry",
            )
    if entry.get("system"):
        raise EntryError(
            "system_turn",
            "'system' holds a system prompt: the template has its own; remove the field, or put "
            "its text into the first human turn",
        )
    if entry.get("tools"):
        raise EntryError(
            "extra_field",
            "'tools' are not shown to the model: write them into the first human turn, or remove "
            "the field",
        )
    for first, second in (("conversations", "messages"), ("image", "images")):
        one, other = entry.get(first), entry.get(second)
        if one and other and other not in (one, [one]):
            raise EntryError(
                "extra_field",
                f"'{first}' and '{second}' differ, and one is read; remove the other",
            )


def _check_turn(number: int, turn: Mapping[str, Any]) -> None:
    """Refuse what a turn holds beside its speaker and its text, and other programs learn by."""
    for field, plain in NOT_LEARNT.items():
        if turn.get(field) not in (None, plain):
            raise EntryError(
                "extra_field",
                f"turn {number} has '{field}': every answer is learnt, and all labels weigh the "
                "same; remove the field, or the answer",
            )
    one, other = turn.get("value"), turn.get("content")
    if one and other and one != other:
        raise EntryError(
            "extra_field",
            f"turn {number}: 'value' and 'content' differ, and one is read; remove the other",
        )
    for field in CALLS:
        if turn.get(field):
            raise EntryError(
                "extra_field",
                f"turn {number} has '{field}', of which nothing would be learnt; remove the field, "
                "or the entry",
            )


_SPLIT = "one image per sample is supported: split the entry, one image each"


def _image(entry: Mapping[str, Any]) -> str | None:
    """The image of an entry's own fields; some programs write a list of one."""
    field = "image" if "image" in entry else "images"
    if field not in entry or (field == "images" and entry[field] in ([], None)):
        return None
    image = entry[field]
    if isinstance(image, list):
        if len(image) != 1:
            raise EntryError("several_images", f"'{field}' is a list of {len(image)}; {_SPLIT}")
        image = image[0]
    if not isinstance(image, str) or not image or "\0" in image:
        raise EntryError(
            "image_field",
            f"'{field}' is not a file name; write a relative path, or leave the field out for text "
            "only",
        )
    return image


def _read_turns(raw: Sequence[object]) -> tuple[list[tuple[str, str]], bool, str | None]:
    """(speaker, text) of every turn; whether a speaker has another name than LLaVA's; and the image
    that a part of a message names.
    """
    turns: list[tuple[str, str]] = []
    renamed = False
    image: str | None = None
    for number, turn in enumerate(raw):
        speaker, field, value = _fields(number, turn)
        if isinstance(turn, Mapping) and len(turn) > 2:
            _check_turn(number, turn)
        if isinstance(value, list):
            value, named = _join_parts(number, value)
            if named and image not in (None, named):
                raise EntryError("several_images", f"the messages name several images; {_SPLIT}")
            image = named or image
        if not isinstance(value, str):
            raise EntryError(
                "turn_form",
                f"turn {number} has no '{field}'; write the text of the turn as a string",
            )
        if speaker == "system":
            raise EntryError("system_turn", f"turn {number} is from 'system': {SYSTEM}")
        if speaker not in ("human", "gpt", *ROLES):
            raise EntryError(
                "speaker",
                f"turn {number} is from {speaker[:40]!r}; only 'human' and 'gpt' are known (and "
                f"{', '.join(ROLES)} in their place)",
            )
        renamed |= speaker in ROLES
        turns.append((ROLES.get(speaker, speaker), value))
    return turns, renamed, image


def _fields(number: int, turn: object) -> tuple[str, str, object]:
    """Who speaks; the name and value of the field with the text."""
    if isinstance(turn, Mapping):
        for who, what in (("from", "value"), ("role", "content")):
            if isinstance(turn.get(who), str):
                return turn[who], what, turn.get(what)
    raise EntryError("turn_form", f'turn {number} has no \'from\'; write "from": "human" or "gpt"')


def _join_parts(number: int, parts: Sequence[object]) -> tuple[str, str | None]:
    """The text of a message that is a list of parts, with a tag where its image is."""
    texts: list[str] = []
    image: str | None = None
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(text, str):
            texts.append(text)
            continue
        if kind not in ("image", "image_url"):
            of = "without a type" if kind is None else f"of type {str(kind)[:40]!r}"
            raise EntryError(
                "turn_form",
                f"turn {number} has a part {of}; only text and one image are read",
            )
        assert isinstance(part, Mapping), "its kind was read from it"
        if IMAGE_TOKEN in texts:
            raise EntryError("several_images", f"turn {number} has several images; {_SPLIT}")
        texts.append(IMAGE_TOKEN)
        image = _address(number, part) or image
    return "\n".join(texts), image


def _address(number: int, part: Mapping[str, Any]) -> str | None:
    """The path in a part that is an image; None where the entry's own field names it."""
    found = part.get("image", part.get("image_url", part.get("path")))
    if isinstance(found, Mapping):
        found = found.get("url", found.get("path"))
    if found is None:
        return None
    if not isinstance(found, str) or not found or "\0" in found:
        raise EntryError("image_field", f"turn {number}: its image is not a file name")
    if found.startswith("data:"):
        raise EntryError(
            "image_field",
            f"turn {number} holds the bytes of its image; write them to a file and give its path",
        )
    return found.removeprefix("file://")


def _check_tags(turns: Sequence[tuple[str, str]], image: str | None) -> None:
    tagged = sum(IMAGE_TOKEN in text for _, text in turns)
    if image is not None:
        if tagged > 1:
            raise EntryError(
                "tags_in_turns",
                f"{IMAGE_TOKEN} in {tagged} turns but only one image; keep the tag in one turn",
            )
        # A template takes tags out and puts one in front: what is left must not be another one.
        for number, (_, text) in enumerate(turns):
            if IMAGE_TOKEN in text.replace(IMAGE_TOKEN, ""):
                raise EntryError(
                    "tags_in_turns",
                    f"turn {number} has a tag inside of a tag, which leaves a second one for one "
                    f"image; write {IMAGE_TOKEN} once",
                )
        return
    # In an entry without image a tag inside a sentence is ordinary text, as in the official code.
    texts = [text.strip() for speaker, text in turns if speaker == "human"]
    if any(text.startswith(IMAGE_TOKEN) or text.endswith(IMAGE_TOKEN) for text in texts):
        raise EntryError(
            "tag_without_image",
            f"tag without an image: a human turn opens or ends with {IMAGE_TOKEN} but there is no "
            "'image' field; add the field, or take the tag out",
        )


def _check_order(turns: Sequence[tuple[str, str]]) -> None:
    # The official code drops a leading gpt turn (ShareGPT has them), so the count starts behind it.
    first = int(turns[0][0] == "gpt")
    if first == len(turns):
        raise EntryError(
            "only_gpt",
            "a single gpt turn, which is dropped as a leading one; add the human turn it answers",
        )
    for number, (speaker, _) in enumerate(turns[first:], start=first):
        expected = "human" if (number - first) % 2 == 0 else "gpt"
        if speaker != expected:
            raise EntryError(
                "turn_order",
                f"turn {number} is from {speaker!r} where {expected!r} is due; turns must "
                "alternate",
            )
