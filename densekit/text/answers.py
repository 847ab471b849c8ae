"""The other end of a template: the tokens that end an answer, and its ids as text, whole or while
they come.
"""

from collections.abc import Sequence

from densekit.errors import DataError
from densekit.text.templates import get_template
from densekit.text.tokenizers.base import Tokenizer

HALF = "\N{REPLACEMENT CHARACTER}"
"""What decoding makes of the bytes of a character that is not whole yet."""


def end_tokens(tokenizer: Tokenizer, template: str) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's end token, and what the template puts behind an
    answer where that is a token. Raises UsageError for an unknown template.
    """
    ids = (tokenizer.eos_id, _ending(tokenizer, template))
    return tuple(dict.fromkeys(id_ for id_ in ids if id_ is not None))


def check_ending(tokenizer: Tokenizer, template: str) -> None:
    """Raises DataError where the template's end of an answer is no token of the tokenizer: then
    no answer would end.
    """
    if _ending(tokenizer, template) is None:
        ending = get_template(template).assistant_end.strip() or "a line break"
        raise DataError(
            f"template {template} ends an answer with {ending}, for which the tokenizer has no "
            "token"
        )


def _ending(tokenizer: Tokenizer, template: str) -> int | None:
    return tokenizer.token_id(get_template(template).assistant_end.strip())


def answer_text(tokenizer: Tokenizer, ids: Sequence[int], ends: Sequence[int]) -> str:
    """The text of generated ids up to the first end token, without it and without white space
    around.
    """
    length = next((place for place, id_ in enumerate(ids) if id_ in ends), len(ids))
    return tokenizer.decode([*ids[:length]]).strip()


class AnswerStream:
    """The text of an answer while its ids come one by one. What `add` and `finish` return is, put
    together, what `answer_text` makes of all of them: a character is held back until its last
    byte is there, white space until more follows.
    """

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int]) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self.ids: list[int] = []
        """Every id so far, the end token included."""
        self.text = ""
        """What was returned so far."""

    def add(self, token_id: int) -> str:
        """The text that is whole with this id; often none."""
        self.ids.append(token_id)
        return self._until(answer_text(self._tokenizer, self.ids, self._ends).rstrip(HALF).rstrip())

    def finish(self) -> str:
        """The rest, half characters included."""
        return self._until(answer_text(self._tokenizer, self.ids, self._ends))

    def _until(self, text: str) -> str:
        """What of the whole text was not returned yet."""
        new = text[len(self.text) :]
        self.text += new
        return new
