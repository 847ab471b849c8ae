"""`v1`: the conversation of Vicuna v1, with the official walk over its rounds."""

import numpy as np

from densekit.spec.types import IGNORE_INDEX
from densekit.text.official_walk import Walk
from densekit.text.template import Template

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


def official_labels(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """Rounds end at `</s>`; from the second on one id less is counted, unless the tokenizer is
    legacy (docs/upstream.md, Q1 and Q2).
    """
    separator = TEMPLATE.human_end + TEMPLATE.assistant
    labels = ids.copy()
    position = 1
    labels[:position] = IGNORE_INDEX
    for index, text_round in enumerate(text.split(TEMPLATE.assistant_end)):
        parts = text_round.split(separator)
        if len(parts) != 2:
            break
        surplus = int(index > 0 and not walk.tokenizer.legacy)
        instruction = walk.count(parts[0] + separator) - 2 - surplus
        labels[position : position + instruction] = IGNORE_INDEX
        position += walk.count(text_round) - surplus
    return walk.checked(labels, ids, position)


TEMPLATE = Template(
    system=SYSTEM,
    human="USER: ",
    assistant="ASSISTANT: ",
    human_end=" ",
    assistant_end="</s>",
    lead=1,
    official_labels=official_labels,
    official_drops_empty=True,
)
