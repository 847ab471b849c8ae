"""Gives ids and character offsets from a tokenizer.json through the `tokenizers` library."""

import json
from collections.abc import Mapping

from densekit.errors import DataError
from densekit.files.json_files import parse_json
from densekit.text.tokenizers.base import Encoding


class FastTokenizer:
    """Tokenizer over the JSON text of a tokenizer.json (so a compressed or edited file works too).

    `special` names bos_token, eos_token and unk_token by their text. Whether a BOS is added is
    found by encoding the empty text.

    Raises:
        DataError: the text is no tokenizer, lacks a special token, or adds more than a BOS.
    """

    def __init__(
        self, tokenizer_json: str, *, special: Mapping[str, str] | None = None, legacy: bool = True
    ) -> None:
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(_untrimmed(tokenizer_json))
        # The library raises bare Exception for a bad file.
        except Exception as error:
            raise DataError(f"tokenizer.json is not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.legacy = legacy
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.vocab_size: int = max(ids, default=-1) + 1
        names = special or {}
        self.bos_id = self._special("bos_token", names)
        self.eos_id = self._special("eos_token", names)
        self.unk_id = self._special("unk_token", names)
        always = self._tokenizer.encode("").ids
        self.adds_bos = bool(always)
        if always and always != [self.bos_id]:
            raise DataError(f"it adds {always} to every text; expected one BOS ({self.bos_id})")

    def _special(self, name: str, special: Mapping[str, str]) -> int | None:
        text = special.get(name)
        if text is None:
            return None
        token_id = self.token_id(text)
        if token_id is None:
            raise DataError(f"{name} {text!r} is not in the vocabulary")
        return token_id

    def encode(self, text: str) -> Encoding:
        """Encode a text; see `Encoding` for the offsets. All bytes of a character get its span."""
        encoded = self._tokenizer.encode(text)
        return Encoding(list(encoded.ids), list(encoded.offsets))

    def decode(self, ids: list[int]) -> str:
        """Return the text of some ids, special tokens included."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """Return the id of a vocabulary entry, or None if there is no such entry."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id


def _untrimmed(tokenizer_json: str) -> str:
    # A trimming ByteLevel post-processor takes the leading space out of a token's offsets, and a
    # lone space would then overlap no span of labels; ids do not depend on it.
    config = parse_json(tokenizer_json.encode())
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    processor = config.get("post_processor") or {}
    trimming = [p for p in (processor, *processor.get("processors", ())) if p.get("trim_offsets")]
    if not trimming:
        return tokenizer_json
    for one in trimming:
        one["trim_offsets"] = False
    return json.dumps(config)
