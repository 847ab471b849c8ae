"""Forms of an entry: each is read as the same conversation, or refused with a sentence."""

from typing import Any

import pytest

from densekit.data.doctor.kinds import KINDS
from densekit.data.entries import EntryError, Form, read_conversation

TURNS = (("human", "<image>\nWhat is it?"), ("gpt", "A cat."))
LLAVA = {
    "image": "a.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
    ],
}


def _messages(*contents: Any, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"messages": turns, **fields}


def _parts(*parts: Any) -> dict[str, Any]:
    return _messages([*parts, {"type": "text", "text": "What is it?"}], "A cat.")


def _answer(**fields: Any) -> dict[str, Any]:
    turns = LLAVA["conversations"]
    assert isinstance(turns, list)
    return {**LLAVA, "conversations": [turns[0], {**turns[1], **fields}]}


SAME: dict[str, tuple[Form, dict[str, Any]]] = {
    "LLaVA": ("llava", LLAVA),
    "a list of one image": ("llava", {**LLAVA, "image": ["a.png"]}),
    "images": ("llava", {"images": ["a.png"], "conversations": LLAVA["conversations"]}),
    "ShareGPT": (
        "sharegpt",
        {
            "image": "a.png",
            "conversations": [
                {"from": "user", "value": "<image>\nWhat is it?"},
                {"from": "assistant", "value": "A cat."},
            ],
        },
    ),
    "messages": ("messages", _messages("<image>\nWhat is it?", "A cat.", image="a.png")),
    "roles under conversations": (
        "messages",
        {"image": "a.png", "conversations": _messages(*(text for _, text in TURNS))["messages"]},
    ),
    "empty fields of a table": (
        "llava",
        {
            **LLAVA,
            "images": [],
            "video": None,
            "videos": [],
            "audio": "",
            "system": "",
            "tools": [],
        },
    ),
    "the same image twice": ("llava", {**LLAVA, "images": ["a.png"]}),
    "a turn that weighs 1": (
        "messages",
        {
            "image": "a.png",
            "messages": [
                {"role": "user", "content": "<image>\nWhat is it?"},
                {"role": "assistant", "content": "A cat.", "weight": 1, "tool_calls": None},
            ],
        },
    ),
    "image part": ("messages", _parts({"type": "image", "image": "a.png"})),
    "image address": ("messages", _parts({"type": "image_url", "image_url": {"url": "a.png"}})),
    "image path": ("messages", _parts({"type": "image", "path": "a.png"})),
    "image of the entry": (
        "messages",
        {**_parts({"type": "image"}), "images": ["a.png"]},
    ),
    "answer of parts": (
        "messages",
        _messages("<image>\nWhat is it?", [{"type": "text", "text": "A cat."}], image="a.png"),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_every_form_is_one_conversation(name: str) -> None:
    form, entry = SAME[name]
    found = read_conversation(entry)
    assert (found.turns, found.image, found.form, found.tagged) == (TURNS, "a.png", form, True)
    assert found.as_turns() == LLAVA["conversations"]


def test_text_alone() -> None:
    for entry in (
        _messages("Why?", "So."),
        _messages("Why?", "So.", images=[]),
        _messages("Why?", "So.", images=None),
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
    ):
        found = read_conversation(entry)
        assert found.image is None and not found.tagged
        assert found.turns == (("human", "Why?"), ("gpt", "So."))


REFUSED: dict[str, tuple[object, str, str]] = {
    "a list": ([], "entry_form", "is a list"),
    "nothing": (None, "entry_form", "is null"),
    "system message": (
        {"messages": [{"role": "system", "content": "Be kind."}, *_messages("a", "b")["messages"]]},
        "system_turn",
        "turn 0 is from 'system': the template has its system prompt",
    ),
    "tool message": (
        {"messages": [{"role": "tool", "content": "x"}]},
        "speaker",
        "from 'tool'; only 'human' and 'gpt' are known (and user, assistant",
    ),
    "two image parts": (
        _parts({"type": "image", "image": "a.png"}, {"type": "image", "image": "b.png"}),
        "several_images",
        "turn 0 has several images; one image per sample",
    ),
    "images of two messages": (
        _messages(
            [{"type": "image", "image": "a.png"}], "x", [{"type": "image", "image": "b.png"}]
        ),
        "several_images",
        "the messages name several images",
    ),
    "two images named": (
        {**_parts({"type": "image", "image": "a.png"}), "image": "b.png"},
        "several_images",
        "'image' and a message name two images",
    ),
    "two fields of images": ({**LLAVA, "images": ["b.png"]}, "extra_field", "and 'images' differ"),
    "two fields of turns": (
        {**LLAVA, **_messages("a", "b")},
        "extra_field",
        "'conversations' and 'messages' differ",
    ),
    "a sound beside the image": ({**LLAVA, "audios": ["a.wav"]}, "video", "'audios' is not"),
    "a system prompt beside": (
        {**LLAVA, "system": "Be brief."},
        "system_turn",
        "'system' holds a system prompt",
    ),
    "tools": ({**LLAVA, "tools": '[{"name": "f"}]'}, "extra_field", "'tools' are not shown"),
    "an answer of weight 0": (_answer(weight=0), "extra_field", "turn 1 has 'weight': every"),
    "half a weight": (_answer(weight=0.5), "extra_field", "turn 1 has 'weight'"),
    "an answer without loss": (_answer(loss=False), "extra_field", "turn 1 has 'loss'"),
    "an answer to skip": (_answer(train=False), "extra_field", "turn 1 has 'train'"),
    "two texts of an answer": (
        _answer(content="another"),
        "extra_field",
        "turn 1: 'value' and 'content' differ",
    ),
    "a call in an answer": (
        _answer(tool_calls=[{"id": "1"}]),
        "extra_field",
        "turn 1 has 'tool_calls', of which nothing would be learnt",
    ),
    "bytes in place": (
        _parts({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}),
        "image_field",
        "write them to a file",
    ),
    "an image that is a number": (_parts({"type": "image", "image": 3}), "image_field", "turn 0"),
    "sound": (
        _parts({"type": "input_audio", "input_audio": {}}),
        "turn_form",
        "a part of type 'input_audio'; only text and one image",
    ),
    "a part that is a text": (_parts("hello"), "turn_form", "a part without a type"),
    "image part without image": (_parts({"type": "image"}), "tag_without_image", "no 'image'"),
    "content null": (_messages(None, "x"), "turn_form", "turn 0 has no 'content'"),
    "two users": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        "turn_order",
        "turn 1 is from 'human' where 'gpt' is due",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_is_refused_with_a_sentence(name: str) -> None:
    entry, kind, message = REFUSED[name]
    with pytest.raises(EntryError) as caught:
        read_conversation(entry)
    assert caught.value.kind == kind in KINDS
    assert message in str(caught.value)
