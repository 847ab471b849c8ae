"""Gives the ids of the slow Llama-2 tokenizer from sentencepiece, with character offsets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densekit.errors import DataError
from densekit.text.tokenizers.base import Encoding, token_text

META_SPACE = "▁"

# Protobuf merges a repeated singular message, so these bytes (normalizer_spec { add_dummy_prefix:
# false }) behind a serialised model switch its dummy prefix off without the protobuf package.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

_Token = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that is cut out of the text before sentencepiece sees it."""

    content: str
    id: int
    lstrip: bool = False
    rstrip: bool = False


def added_tokens(decoder: object, extra: Mapping[str, object]) -> list[AddedToken]:
    """Read `added_tokens_decoder` (id -> token) and `added_tokens.json` (text -> id).

    Raises:
        DataError: an entry has no text, or no integer id of 0 or more.
    """
    if not isinstance(decoder, Mapping):
        raise DataError("added_tokens_decoder must be an object")
    tokens = {}
    try:
        for text, token_id in extra.items():
            tokens[text] = AddedToken(content=text, id=int(str(token_id)))
        for token_id, entry in decoder.items():
            content = token_text(entry)
            if content is None:
                raise ValueError(f"added token {token_id} has no content")
            flags = entry if isinstance(entry, Mapping) else {}
            tokens[content] = AddedToken(
                content=content,
                id=int(token_id),
                lstrip=bool(flags.get("lstrip")),
                rstrip=bool(flags.get("rstrip")),
            )
    except ValueError as error:
        raise DataError(f"bad added token: {error}") from error
    negative = [token for token in tokens.values() if token.id < 0]
    if negative:
        raise DataError(
            f"bad added token: {negative[0].content[:60]} has the id {negative[0].id}, and ids are "
            "0 or more"
        )
    return list(tokens.values())


class SentencePieceTokenizer:
    """Llama-2 family tokenizer over a serialised sentencepiece model.

    The method: the text is split at special tokens. With legacy=True
    each part is encoded by itself, dummy prefix included. With legacy=False one meta symbol is put
    before the whole text, the model's dummy prefix is off, and a part that starts with a space is
    encoded behind the unknown token, whose pieces are dropped, because sentencepiece would
    otherwise lose that space.

    Raises:
        DataError: the bytes are no sentencepiece model, or a special token is not in it.
    """

    def __init__(
        self,
        model: bytes,
        *,
        legacy: bool = True,
        add_bos: bool = True,
        special: Mapping[str, str] | None = None,
        added: Sequence[AddedToken] = (),
    ) -> None:
        import sentencepiece

        if not model:
            raise DataError("tokenizer.model is not a sentencepiece model: it is empty")
        self._arguments = (model, legacy, add_bos, dict(special or {}), tuple(added))
        try:
            self._plain = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._model: Any = (
                self._plain
                if legacy
                else sentencepiece.SentencePieceProcessor(model_proto=model + _NO_DUMMY_PREFIX)
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                f"tokenizer.model is not a sentencepiece model: {error}; where tokenizer.json is "
                "the model's, remove tokenizer.model"
            ) from error
        self.legacy = legacy
        self._cut = {token.content: token for token in added}
        self.unk_id: int | None = self._special("unk_token", special, self._plain.unk_id())
        self.bos_id = self._special("bos_token", special, self._plain.bos_id())
        self.eos_id = self._special("eos_token", special, self._plain.eos_id())
        self.adds_bos = add_bos and self.bos_id is not None
        self._named = {self.unk_id, self.bos_id, self.eos_id} - {None}
        self._texts = {token.id: token.content for token in self._cut.values()}
        self.vocab_size: int = max(self._plain.get_piece_size(), *(i + 1 for i in self._texts))
        # Longest first, so that of two tokens starting at one place the longer one wins.
        contents = sorted(filter(None, self._cut), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, contents)))
        self._unk_text = self._texts[self._plain.unk_id() if self.unk_id is None else self.unk_id]
        self._unk_pieces = len(self._model.encode(self._unk_text, out_type=int))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, self._arguments

    def _special(self, name: str, special: Mapping[str, str] | None, default: int) -> int | None:
        text = (special or {}).get(name)
        if text is None:
            if default < 0:
                return None
            text = self._plain.id_to_piece(default)
        token_id = self.token_id(text)
        if token_id is None:
            raise DataError(f"{name} {text!r} is not in the vocabulary")
        self._cut.setdefault(text, AddedToken(content=text, id=token_id))
        return token_id

    def encode(self, text: str) -> Encoding:
        """Encode a text; see `Encoding` for the offsets. All bytes of a character get its span."""
        if self.legacy or not text:
            tokens = self._pieces(text)
        else:
            tokens = self._pieces(META_SPACE + text.replace(META_SPACE, " "))
            if len(tokens) > 1 and tokens[0][2] == 1 and tokens[1][0] in self._named:
                tokens = tokens[1:]
            tokens = [(i, max(start - 1, 0), max(end - 1, 0)) for i, start, end in tokens]
        if self.adds_bos and self.bos_id is not None:
            tokens = [(self.bos_id, 0, 0), *tokens]
        return Encoding([i for i, _, _ in tokens], [(start, end) for _, start, end in tokens])

    def decode(self, ids: list[int]) -> str:
        """Return the text of some ids, special tokens included."""
        parts: list[str] = []
        run: list[int] = []
        for token_id in ids:
            if token_id in self._texts:
                parts += [str(self._plain.decode(run)) if run else "", self._texts[token_id]]
                run = []
            else:
                run.append(token_id)
        return "".join([*parts, str(self._plain.decode(run)) if run else ""])

    def token_id(self, token: str) -> int | None:
        """Return the id of an added token or a piece, or None if there is no such entry."""
        if token in self._cut:
            return self._cut[token].id
        token_id = int(self._plain.piece_to_id(token))
        return token_id if self._plain.id_to_piece(token_id) == token else None

    def _pieces(self, text: str) -> list[_Token]:
        tokens: list[_Token] = []
        start, strip_next = 0, False
        for match in [*self._pattern.finditer(text), None]:
            end = len(text) if match is None else match.start()
            found = None if match is None else self._cut[match.group()]
            part = text[start:end]
            if strip_next:
                part = part.lstrip()
            part_start = end - len(part)
            if found is not None and found.lstrip:
                part = part.rstrip()
            tokens += self._part(part, part_start)
            if match is not None and found is not None:
                tokens.append((found.id, match.start(), match.end()))
                start, strip_next = match.end(), found.rstrip
        return tokens

    def _part(self, part: str, shift: int) -> list[_Token]:
        if not part:
            return []
        guarded = not self.legacy and part.startswith((META_SPACE, " "))
        if guarded:
            part, shift = self._unk_text + part, shift - len(self._unk_text)
        mapping = self._model.encode(part, return_type="offset_mapping")
        tokens: list[_Token] = []
        # sentencepiece gives a character's span to its last byte only, hence the walk from the end.
        for token_id, (start, end) in zip(
            reversed(mapping["ids"]), reversed(mapping["offsets"]), strict=True
        ):
            if start == end and self._model.is_byte(token_id):
                tokens.append((token_id, tokens[-1][1], tokens[-1][2]))
            else:
                tokens.append((token_id, start + shift, end + shift))
        tokens.reverse()
        return tokens[self._unk_pieces :] if guarded else tokens


def _rebuild(
    model: bytes,
    legacy: bool,
    add_bos: bool,
    special: dict[str, str],
    added: tuple[AddedToken, ...],
) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(
        model, legacy=legacy, add_bos=add_bos, special=special, added=added
    )
