"""Renders a conversation to the text a model sees and records which characters are supervised."""

from collections.abc import Sequence
from dataclasses import dataclass

from densekit.errors import UsageError

Span = tuple[int, int]
Turn = tuple[str, str]
"""A role ("human" or "gpt") and its text."""


@dataclass(frozen=True)
class Rendered:
    """Text of a conversation with character spans [start, end) into it.

    `supervised`: what is learned, end token included. `human`: the texts of the human turns.
    """

    text: str
    supervised: tuple[Span, ...]
    human: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """Strings around the turns of a conversation.

    `lead` characters of the assistant header are supervised with the answer: the separator space,
    which a sentencepiece vocabulary joins to the answer's first word. Where the official code
    renders otherwise, `official_assistant` is its header, and `official_drops_empty` says that it
    shows an empty turn as the bare header (no trailing space, no end token).
    """

    name: str
    system: str
    human: str
    assistant: str
    human_end: str
    assistant_end: str
    lead: int = 0
    official_assistant: str | None = None
    official_drops_empty: bool = False

    def header(self, role: str, *, official: bool) -> str:
        """Return the text before a turn of this role."""
        if role == "human":
            return self.human
        if official and self.official_assistant is not None:
            return self.official_assistant
        return self.assistant

    def render(self, turns: Sequence[Turn], *, official: bool, answer: bool = False) -> Rendered:
        """Render turns; with `answer`, end with the header of an assistant turn still to be
        written.
        """
        text, supervised, human = self.system, [], []
        for role, value in turns:
            header = self.header(role, official=official)
            if not value and official and self.official_drops_empty:
                text += _open(header)
                continue
            text += header
            start = len(text)
            text += value
            if role == "human":
                human.append((start, len(text)))
                text += self.human_end
            else:
                text += self.assistant_end
                supervised.append((start - self.lead, len(text)))
        if answer:
            text += _open(self.header("gpt", official=official))
        return Rendered(text, tuple(supervised), tuple(human))


def _open(header: str) -> str:
    return header.rstrip(" ")


_CHAT_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)

plain = Template(name="plain", system="", human="", assistant="", human_end="", assistant_end="\n")

v1 = Template(
    name="v1",
    system=_CHAT_SYSTEM,
    human="USER: ",
    assistant="ASSISTANT: ",
    human_end=" ",
    assistant_end="</s>",
    lead=1,
    official_drops_empty=True,
)

phi = Template(
    name="phi",
    system=_CHAT_SYSTEM,
    human="USER: ",
    assistant="ASSISTANT: ",
    human_end=" ",
    assistant_end="<|endoftext|>",
    lead=1,
)

llama_3 = Template(
    name="llama_3",
    system=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful language and vision assistant. You are able to understand the visual content "
        "that the user provides, and assist the user with a variety of tasks using natural language."
        "<|eot_id|>"
    ),
    human="<|start_header_id|>user<|end_header_id|>\n\n",
    assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
    human_end="<|eot_id|>",
    assistant_end="<|eot_id|>",
    official_assistant="<|start_header_id|>system<|end_header_id|>\n\n",
    official_drops_empty=True,
)

chatml_direct = Template(
    name="chatml_direct",
    system="<|im_start|>system\nAnswer the questions.<|im_end|>",
    human="<|im_start|>user\n",
    assistant="<|im_start|>assistant\n",
    human_end="<|im_end|>",
    assistant_end="<|im_end|>",
)

TEMPLATES: dict[str, Template] = {t.name: t for t in (plain, v1, llama_3, chatml_direct, phi)}


def get_template(name: str) -> Template:
    """Return a template by name.

    Raises:
        UsageError: there is no such template.
    """
    if name not in TEMPLATES:
        raise UsageError(f"unknown template {name!r}; known: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
