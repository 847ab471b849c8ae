"""End tokens of each template, and the text of an answer while it comes."""

import pytest

from densekit.errors import DataError
from densekit.text.answers import AnswerStream, answer_text, check_ending, end_tokens
from densekit.text.tokenizers.base import Tokenizer
from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.support.pipelines import byte_tokenizer

TEXTS = ("Üben: 日本 🦆, e\N{COMBINING ACUTE ACCENT}!\n\n  two  lines ", "", " \n ", "naïve 🏳️‍🌈")


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        ("v1", ["</s>"]),
        ("plain", ["</s>"]),
        ("llama_3", ["</s>", "<|eot_id|>"]),
        ("chatml_direct", ["</s>", "<|im_end|>"]),
    ],
)
def test_answers_end_with_the_tokenizers_and_the_templates_token(
    template: str, ends: list[str]
) -> None:
    tokenizer = byte_tokenizer()
    assert end_tokens(tokenizer, template) == tuple(tokenizer.token_id(text) for text in ends)


def test_a_template_whose_end_is_no_token_is_refused() -> None:
    tokenizer = byte_tokenizer(special=("</s>",))
    check_ending(tokenizer, "v1")
    for template, ending in (
        ("llama_3", "<|eot_id|>"),
        ("chatml_direct", "<|im_end|>"),
        ("phi", "<|endoftext|>"),
        ("plain", "a line break"),
    ):
        with pytest.raises(DataError, match=f"^template {template} ends an answer with ") as raised:
            check_ending(tokenizer, template)
        assert f"with {ending}, for which" in str(raised.value)


def test_text_stops_at_the_first_end_token() -> None:
    tokenizer = byte_tokenizer()
    end = tokenizer.token_id("<|eot_id|>")
    assert end is not None
    ids = [*tokenizer.encode(" a cat \n").ids, end, *tokenizer.encode("more").ids]
    assert answer_text(tokenizer, ids, [end]) == "a cat"
    assert answer_text(tokenizer, ids[:4], [end]) == "a c"


def _streamed(tokenizer: Tokenizer, ids: list[int], ends: list[int]) -> list[str]:
    stream = AnswerStream(tokenizer, ends)
    return [*(stream.add(id_) for id_ in ids), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(text: str, sp_legacy: SentencePieceTokenizer) -> None:
    for tokenizer in (byte_tokenizer(), sp_legacy):
        eos = tokenizer.eos_id
        assert eos is not None
        ids = [*tokenizer.encode(text).ids, eos]
        pieces = _streamed(tokenizer, ids, [eos])
        assert "".join(pieces) == answer_text(tokenizer, ids, [eos])
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert (
        "".join(_streamed(byte_tokenizer(), byte_tokenizer().encode(text).ids, [])) == text.strip()
    )


def test_half_a_character_at_the_end_is_shown_in_the_end() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("ab🦆").ids[:-1]
    pieces = _streamed(tokenizer, ids, [])
    assert "".join(pieces[:-1]) == "ab"
    assert pieces[-1] == "\N{REPLACEMENT CHARACTER}"
