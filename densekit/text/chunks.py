"""Encodes a rendered text chunk by chunk around its image tags."""

from collections.abc import Sequence

from densekit.spec.types import IMAGE_TOKEN, IMAGE_TOKEN_ID, Semantics
from densekit.text.tokenizers.base import Encoding, Tokenizer


def tag_positions(text: str, within: Sequence[tuple[int, int]] | None = None) -> list[int]:
    """Return where the image tags start, in the whole text or only inside the given spans."""
    found = []
    for start, end in [(0, len(text))] if within is None else within:
        position = text.find(IMAGE_TOKEN, start, end)
        while position >= 0:
            found.append(position)
            position = text.find(IMAGE_TOKEN, position + len(IMAGE_TOKEN), end)
    return found


def encode_chunks(
    tokenizer: Tokenizer, text: str, tags: Sequence[int], *, semantics: Semantics
) -> Encoding:
    """Encode the texts between the tags, with IMAGE_TOKEN_ID for each tag.

    Faithful: if the first id of all is BOS, the first id of every later chunk is dropped, whether
    the tokenizer added it or not (docs/upstream.md, Q9). Fixed: only a BOS that the tokenizer added
    is dropped, from later chunks and from a text that brings its own.
    """
    official = semantics == "faithful"
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    starts = [0, *(tag + len(IMAGE_TOKEN) for tag in tags)]
    for index, (start, end) in enumerate(zip(starts, [*tags, len(text)], strict=True)):
        chunk = tokenizer.encode(text[start:end])
        if index == 0:
            first_is_bos = tokenizer.bos_id is not None and chunk.ids[:1] == [tokenizer.bos_id]
            doubled = tokenizer.adds_bos and chunk.ids[1:2] == [tokenizer.bos_id]
            skip = 1 if doubled and not official else 0
            drop = int(first_is_bos if official else tokenizer.adds_bos)
        else:
            ids.append(IMAGE_TOKEN_ID)
            offsets.append((start - len(IMAGE_TOKEN), start))
            skip = drop
        ids += chunk.ids[skip:]
        offsets += [(a + start, b + start) for a, b in chunk.offsets[skip:]]
    return Encoding(ids, offsets)
