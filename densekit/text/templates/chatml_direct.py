"""`chatml_direct`: ChatML, for Yi, with the walk that the official code calls `mpt`
(docs/upstream.md, 1.9).
"""

import numpy as np

from densekit.text.official_walk import Walk, labels_of_pairs
from densekit.text.template import Template


def official_labels(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """The end token of each round is counted only for a legacy tokenizer, which Yi's is: with
    another one no sample is labelled.
    """
    separator = TEMPLATE.human_end + TEMPLATE.assistant
    end_tokens = int(walk.tokenizer.legacy)
    return labels_of_pairs(
        walk, text, ids, end=TEMPLATE.assistant_end, separator=separator, end_tokens=end_tokens
    )


TEMPLATE = Template(
    system="<|im_start|>system\nAnswer the questions.<|im_end|>",
    human="<|im_start|>user\n",
    assistant="<|im_start|>assistant\n",
    human_end="<|im_end|>",
    assistant_end="<|im_end|>",
    official_labels=official_labels,
    official_drops_empty=True,
)
