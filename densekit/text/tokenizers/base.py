"""Says what a tokenizer must offer here and loads one from a model directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from densekit.errors import DataError
from densekit.files.json_files import json_kind, optional_object, read_file

SWITCHES = ("legacy", "add_bos_token", "add_eos_token")
"""Of tokenizer_config.json: true, false or null."""
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files of a model's folder that decide what its tokenizer does; each folder has some of them."""


@dataclass(frozen=True)
class Encoding:
    """Ids of one text and, for each id, the characters [start, end) it came from.

    A BOS that the tokenizer added has (0, 0). A piece without characters (the dummy prefix of
    sentencepiece) has start == end.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer(Protocol):
    """What the rest of the package asks of a tokenizer."""

    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    vocab_size: int
    """Every id is below this."""
    adds_bos: bool
    legacy: bool

    def encode(self, text: str) -> Encoding:
        """Encode a text, with the BOS that the tokenizer adds by itself, if any."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of some ids, special tokens included."""
        ...

    def token_id(self, token: str) -> int | None:
        """Return the id of one vocabulary entry, or None if there is no such entry."""
        ...


def token_text(value: object) -> str | None:
    """Return the text of a token that a config file holds as a string or as {"content": ...}."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load the tokenizer of a model directory.

    `tokenizer.model` is read by sentencepiece and comes first, because `tokenizer.json` files of
    the Llama-2 family do not give the slow tokenizer's ids; otherwise `tokenizer.json` is read.

    Raises:
        DataError: the directory has neither file, or a file cannot be read or understood.
    """
    from densekit.text.tokenizers.fast import FastTokenizer
    from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer, added_tokens

    directory = Path(directory)
    model_file, json_file = directory / "tokenizer.model", directory / "tokenizer.json"
    if not model_file.is_file() and not json_file.is_file():
        raise DataError(
            f"no tokenizer in {directory}: it needs tokenizer.model (sentencepiece) or "
            "tokenizer.json"
        )
    config = optional_object(directory / "tokenizer_config.json")
    special_map = optional_object(directory / "special_tokens_map.json")
    special = {
        name: text
        for name in ("bos_token", "eos_token", "unk_token")
        if (text := token_text(config.get(name)) or token_text(special_map.get(name))) is not None
    }
    legacy = config.get("legacy") is not False
    for name in SWITCHES:
        if not isinstance(config.get(name), bool | None):
            raise DataError(
                f"tokenizer in {directory}: tokenizer_config.json: {name} must be true or false, "
                f"not {json_kind(config[name])}"
            )
    try:
        if model_file.is_file():
            if config.get("add_eos_token"):
                raise DataError("add_eos_token is set, but no template here expects an added EOS")
            return SentencePieceTokenizer(
                read_file(model_file),
                legacy=legacy,
                add_bos=bool(config.get("add_bos_token", True)),
                special=special,
                added=added_tokens(
                    config.get("added_tokens_decoder", {}),
                    optional_object(directory / "added_tokens.json"),
                ),
            )
        text = read_file(json_file).decode("utf-8")
        return FastTokenizer(text, special=special, legacy=legacy)
    except DataError as error:
        raise DataError(f"tokenizer in {directory}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"tokenizer in {directory} cannot be read: {error}") from error
