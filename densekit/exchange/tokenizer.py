"""The tokenizer of a checkpoint: its files, and the template of conversations it is for."""

from pathlib import Path

from densekit.text.templates import get_template
from densekit.text.tokenizers.base import Tokenizer, load_tokenizer

BY_TOKEN = (
    ("<|start_header_id|>", "llama_3"),
    ("<|im_start|>", "chatml_direct"),
)
"""A token that only one family of templates uses, and the template."""


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer in a folder. Raises DataError where there is none."""
    return load_tokenizer(folder)


def chat_template_of(folder: Path) -> str:
    """The template of conversations: official folders do not say it, and their loader goes by the
    folder's name; what tells is the tokenizer.
    """
    tokenizer = tokenizer_of(folder)
    for token, template in BY_TOKEN:
        if tokenizer.token_id(token) is not None:
            return template
    return "v1"


def end_tokens(folder: Path, template: str) -> list[int]:
    """Ids that end an answer: the tokenizer's end token, and what the template puts behind an
    answer where that is a token.
    """
    tokenizer = tokenizer_of(folder)
    ids = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    behind = tokenizer.token_id(get_template(template).assistant_end.strip())
    return ids if behind is None or behind in ids else [*ids, behind]
