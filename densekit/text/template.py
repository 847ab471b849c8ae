"""Templates: how a conversation becomes the text a model sees, and which of its characters have
labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from densekit.errors import DataError
from densekit.spec.types import Semantics
from densekit.text.conversation import Turn, alternating_turns, with_tags_in_front
from densekit.text.official_walk import OfficialLabels

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """Text of a conversation with character spans [start, end) into it.

    `labelled`: what is learned, end token included. `human`: the texts of the human turns.
    """

    text: str
    labelled: tuple[Span, ...]
    human: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """Strings around the turns of a conversation, and what the official code makes of them.

    A template is a module of `densekit/text/templates` that defines TEMPLATE.
    """

    system: str
    human: str
    assistant: str
    human_end: str
    assistant_end: str
    lead: int = 0
    """Characters of the assistant header that are labelled with the answer: the separator space,
    which a sentencepiece vocabulary joins to the answer's first word.
    """
    official_labels: OfficialLabels | None = None
    """The labels of the official branch; None where the official code has no branch that works."""
    official_assistant: str | None = None
    """The official header of an assistant turn, where it is another one."""
    official_drops_empty: bool = False
    """The official code shows an empty turn as the bare header: no trailing space, no end token."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer has it; None: the unknown or the end token."""
    always_tagged: bool = False
    """An image tag is there by definition, also in a sample that names no image."""

    def turns(
        self, conversations: object, *, has_image: bool, semantics: Semantics
    ) -> tuple[list[Turn], bool]:
        """The turns to render, and whether a first turn from gpt was dropped.

        Raises DataError: a turn is malformed or out of order.
        """
        turns, dropped = alternating_turns(conversations)
        if not turns and semantics == "fixed":
            raise DataError("no turn is left once the first one, from gpt, is dropped")
        return (with_tags_in_front(turns, semantics) if has_image else turns), dropped

    def prompt_turns(self, conversations: object, *, has_image: bool) -> list[Turn]:
        """The turns up to the answer that is to be generated; a last turn from gpt is left out.

        Image tags stay where they are, as in the recorded prompts. Raises DataError: a turn is
        malformed or out of order, or there is no human turn.
        """
        turns, _ = alternating_turns(conversations)
        if turns and turns[-1][0] == "gpt":
            turns = turns[:-1]
        if not turns:
            raise DataError("a prompt needs a human turn")
        return turns

    def header(self, role: str, semantics: Semantics) -> str:
        """Return the text before a turn of this role."""
        if role == "human":
            return self.human
        if semantics == "faithful" and self.official_assistant is not None:
            return self.official_assistant
        return self.assistant

    def render(
        self, turns: Sequence[Turn], semantics: Semantics, *, answer: bool = False
    ) -> Rendered:
        """Render turns; with `answer`, end with the header of an assistant turn still to be
        written.
        """
        text, labelled, human = self.system, [], []
        for role, value in turns:
            header = self.header(role, semantics)
            if not value and semantics == "faithful" and self.official_drops_empty:
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
                labelled.append((start - self.lead, len(text)))
        if answer:
            text += _open(self.header("gpt", semantics))
        return Rendered(text, tuple(labelled), tuple(human))


def _open(header: str) -> str:
    return header.rstrip(" ")
