"""`plain`: an image and its caption, for stage 1."""

from collections.abc import Sequence

import numpy as np

from densekit.errors import DataError
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN, Semantics
from densekit.text.chunks import encode_chunks
from densekit.text.conversation import Turn, alternating_turns, turn_values, with_tags_in_front
from densekit.text.official_walk import Walk
from densekit.text.template import Template


class PlainTemplate(Template):
    """Two turns: whatever the human says beside the tag is dropped, the answer is the caption."""

    def turns(
        self, conversations: object, *, has_image: bool, semantics: Semantics
    ) -> tuple[list[Turn], bool]:
        """Raises DataError also for another number of turns, or no tag in the first."""
        dropped = False
        if semantics == "faithful":
            # The official branch takes the turns as they come and never looks at "from".
            found: Sequence[tuple[object, str]] = turn_values(conversations)
        else:
            found, dropped = alternating_turns(conversations)
            if not found:
                raise DataError("no turn is left once the first one, from gpt, is dropped")
        if len(found) != 2:
            raise DataError(f"template plain: expected 2 turns, found {len(found)}")
        (_, question), (_, caption) = found
        if IMAGE_TOKEN not in question:
            raise DataError(f"turn 0: template plain expects {IMAGE_TOKEN} in it")
        turns: list[Turn] = [("human", IMAGE_TOKEN), ("gpt", caption)]
        return (with_tags_in_front(turns, semantics) if has_image else turns), dropped

    def prompt_turns(self, conversations: object, *, has_image: bool) -> list[Turn]:
        """The bare image."""
        super().prompt_turns(conversations, has_image=has_image)
        return [("human", IMAGE_TOKEN if has_image else "")]


def official_labels(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """Everything behind the image, caption and newline (docs/upstream.md, Q5)."""
    labels = ids.copy()
    prefix = encode_chunks(walk.tokenizer, IMAGE_TOKEN, [0], semantics="faithful")
    labels[: len(prefix.ids)] = IGNORE_INDEX
    return labels, True


TEMPLATE = PlainTemplate(
    system="",
    human="",
    assistant="",
    human_end="",
    assistant_end="\n",
    official_labels=official_labels,
    always_tagged=True,
)
