"""`llama_3`: Llama-3's headers, with the official walk and its pad token (docs/upstream.md, Q9)."""

import numpy as np

from densekit.text.official_walk import Walk, labels_of_pairs
from densekit.text.template import Template

HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"


def official_labels(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """Two turns make a round; the official header of an assistant says `system`."""
    separator = TEMPLATE.human_end + TEMPLATE.header("gpt", "faithful")
    return labels_of_pairs(
        walk, text, ids, end=TEMPLATE.assistant_end, separator=separator, end_tokens=1
    )


TEMPLATE = Template(
    system=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful language and vision assistant. "
        "You are able to understand the visual content that the user provides, "
        "and assist the user with a variety of tasks using natural language."
        "<|eot_id|>"
    ),
    human=HEADER.format("user"),
    assistant=HEADER.format("assistant"),
    human_end="<|eot_id|>",
    assistant_end="<|eot_id|>",
    official_labels=official_labels,
    official_assistant=HEADER.format("system"),
    official_drops_empty=True,
    pad_token="<|reserved_special_token_0|>",
)
