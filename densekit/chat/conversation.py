"""One conversation about at most one picture, as the models were trained: the picture stands in
front of the first question.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from densekit.data.pixels import open_image
from densekit.errors import DataError
from densekit.exchange.pipeline import Answer, Pipeline
from densekit.spec.types import IMAGE_TOKEN
from densekit.text.conversation import Turn


class Conversation:
    """Turns so far, and the picture they are about."""

    def __init__(self, pipeline: Pipeline, *, max_new_tokens: int, temperature: float) -> None:
        self._pipeline = pipeline
        self._max_new_tokens, self._temperature = max_new_tokens, temperature
        self._image: Path | None = None
        self.turns: list[Turn] = []

    def look_at(self, path: Path) -> None:
        """Begin anew with another picture. Raises DataError where it cannot be read; then
        everything stays as it is.
        """
        if not path.is_file():
            raise DataError(f"{path} is not a file: name a picture")
        open_image(path)
        self._image = path
        self.reset()

    def reset(self) -> None:
        """Begin anew with the same picture."""
        self.turns = []

    def ask(self, text: str, on_text: Callable[[str], None]) -> Answer | None:
        """The answer to the next question, whose text `on_text` gets as it comes; None where
        Ctrl-C cut it short: what was said by then is kept.

        Raises DataError where the question cannot be asked; then it is forgotten.
        """
        if IMAGE_TOKEN in text:
            raise DataError(
                f"{IMAGE_TOKEN} is put in front of the first question by itself: remove it, and "
                "name the picture with /image FILE"
            )
        first = self._image is not None and not self.turns
        asked: list[Turn] = [*self.turns, ("human", f"{IMAGE_TOKEN}\n{text}" if first else text)]
        image = None if self._image is None else open_image(self._image)
        try:
            prompt = self._pipeline.prompt(asked, image)
        except DataError as error:
            further = ", or begin anew with /reset" if self.turns else ""
            raise DataError(f"{error}{further}") from None
        said: list[str] = []

        def pass_on(piece: str) -> None:
            said.append(piece)
            on_text(piece)

        answer = None
        with contextlib.suppress(KeyboardInterrupt):
            (answer,) = self._pipeline.answers(
                [prompt],
                max_new_tokens=self._max_new_tokens,
                temperature=self._temperature,
                on_text=pass_on,
            )
        self.turns = [*asked, ("gpt", "".join(said).strip() if answer is None else answer.text)]
        return answer
