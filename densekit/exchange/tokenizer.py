"""The tokenizer of a checkpoint, and the template of conversations it is for."""

from pathlib import Path

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
