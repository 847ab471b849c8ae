"""Tests of both tokenizer adapters: ids, character offsets, loading and its errors."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.errors import DataError
from densekit.text.tokenizers.base import Encoding, Tokenizer, load_tokenizer
from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import AddedToken, SentencePieceTokenizer
from tests.support.conversations import with_added_bos

TEXTS = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(
            [
                " ",
                "  ",
                "\n",
                "</s>",
                "<s>",
                "<unk>",
                "the",
                "USER",
                "é",
                "猫",
                "🦙",
                "▁",
                "<|eot_id|>",
            ]
        ),
        max_size=12,
    ).map("".join),
)


def check_tiling(encoding: Encoding, text: str, *, skip: int, shared: int) -> None:
    """Check that spans follow each other without a gap; `shared` characters may lie in two
    neighbours.
    """
    position = 0
    previous = (0, 0)
    for start, end in encoding.offsets[skip:]:
        assert (start, end) == previous or position - shared <= start <= position <= end, (
            encoding,
            text,
        )
        assert end - start <= 1 or (start, end) != previous
        position, previous = max(position, end), (start, end)
    assert position == len(text)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_sentencepiece_offsets_tile_the_text(
    sp_tokenizer: SentencePieceTokenizer, text: str
) -> None:
    check_tiling(sp_tokenizer.encode(text), text, skip=1, shared=0)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_fast_offsets_tile_the_text(bpe_no_bos: FastTokenizer, text: str) -> None:
    # A merge of bytes may join a letter with the first byte of the next character.
    check_tiling(bpe_no_bos.encode(text), text, skip=0, shared=1)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_fast_decodes_what_it_encodes(bpe_no_bos: FastTokenizer, text: str) -> None:
    assert bpe_no_bos.decode(bpe_no_bos.encode(text).ids) == text


def test_bytes_of_one_character_share_its_span(
    sp_tokenizer: SentencePieceTokenizer, bpe_no_bos: FastTokenizer
) -> None:
    for tokenizer in (sp_tokenizer, bpe_no_bos):
        encoding = tokenizer.encode("the🦙the")
        assert [span for span in encoding.offsets if span == (3, 4)] == [(3, 4)] * 4


def test_a_token_keeps_its_leading_space(bpe_no_bos: FastTokenizer) -> None:
    encoding = bpe_no_bos.encode("a the")
    assert encoding.offsets[-1] == (1, 5)


def test_bos_comes_first_with_an_empty_span(sp_tokenizer: SentencePieceTokenizer) -> None:
    encoding = sp_tokenizer.encode("the")
    assert encoding.ids[0] == sp_tokenizer.bos_id == 1
    assert encoding.offsets[0] == (0, 0)
    assert sp_tokenizer.encode("").ids == [1]


def test_text_behind_a_special_token_depends_on_legacy(sp_model: bytes) -> None:
    legacy = SentencePieceTokenizer(sp_model, legacy=True)
    new = SentencePieceTokenizer(sp_model, legacy=False)
    meta_the = legacy.token_id("▁the")
    assert legacy.encode("</s>the").ids == [1, 2, meta_the]
    assert new.encode("</s>the").ids[:2] == [1, 2]
    assert meta_the not in new.encode("</s>the").ids
    assert new.encode("</s>the").offsets[-1][1] == len("</s>the")


def test_new_behaviour_keeps_a_leading_space(sp_model: bytes) -> None:
    new = SentencePieceTokenizer(sp_model, legacy=False)
    the = new.token_id("▁the")
    assert new.encode("</s> the").ids == [1, 2, the]
    assert new.encode("the").ids == [1, the]


def test_no_bos_when_the_tokenizer_adds_none(sp_model: bytes) -> None:
    tokenizer = SentencePieceTokenizer(sp_model, add_bos=False)
    assert not tokenizer.adds_bos
    assert 1 not in tokenizer.encode("the").ids


def test_added_tokens_are_cut_out_with_their_spaces(sp_model: bytes) -> None:
    added = [
        AddedToken(content="<|x|>", id=480, lstrip=True, rstrip=True),
        AddedToken(content="<|x|>y", id=481),
    ]
    tokenizer = SentencePieceTokenizer(sp_model, added=added)
    assert tokenizer.vocab_size == 482
    encoding = tokenizer.encode("the  <|x|>  the<|x|>y")
    the = tokenizer.token_id("▁the")
    assert encoding.ids == [1, the, 480, the, 481]
    assert encoding.offsets[1:] == [(0, 3), (5, 10), (12, 15), (15, 21)]
    assert tokenizer.decode([the, 480, 2]) == "the<|x|></s>"


def test_adapters_survive_pickling(
    sp_tokenizer: SentencePieceTokenizer, bpe_add_bos: FastTokenizer
) -> None:
    tokenizers: tuple[Tokenizer, ...] = (sp_tokenizer, bpe_add_bos)
    for tokenizer in tokenizers:
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.encode("a</s>the 🦙") == tokenizer.encode("a</s>the 🦙")


def test_adds_bos_is_found(bpe_no_bos: FastTokenizer, bpe_add_bos: FastTokenizer) -> None:
    assert not bpe_no_bos.adds_bos
    assert bpe_add_bos.adds_bos
    assert bpe_add_bos.encode("the").ids == [bpe_add_bos.bos_id, *bpe_no_bos.encode("the").ids]
    assert bpe_add_bos.encode("the").offsets[0] == (0, 0)


def test_load_prefers_the_sentencepiece_file(
    tmp_path: Path, sp_model: bytes, bpe_json: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(bpe_json)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|eot_id|>"}})
    )
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<|begin_of_text|>"})
    )
    fast = load_tokenizer(tmp_path)
    assert isinstance(fast, FastTokenizer)
    assert (fast.bos_id, fast.eos_id, fast.unk_id) == (0, 4, None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    (tmp_path / "special_tokens_map.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(sp_model)
    slow = load_tokenizer(tmp_path)
    assert isinstance(slow, SentencePieceTokenizer)
    assert (slow.unk_id, slow.bos_id, slow.eos_id, slow.vocab_size) == (0, 1, 2, 480)
    assert slow.legacy and slow.adds_bos


def test_load_honours_the_config(tmp_path: Path, sp_model: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sp_model)
    config = {
        "legacy": False,
        "add_bos_token": False,
        "added_tokens_decoder": {"481": {"content": "<two>", "rstrip": True}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<one>": 480}))
    tokenizer = load_tokenizer(tmp_path)
    assert not tokenizer.legacy and not tokenizer.adds_bos
    assert tokenizer.encode("the<one><two> ").ids == [tokenizer.token_id("▁the"), 480, 481]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "tokenizer.model"),
        ({"tokenizer.model": b"junk"}, "not a sentencepiece model"),
        ({"tokenizer.model": b""}, "not a sentencepiece model"),
        ({"tokenizer.json": b"{}"}, "not a tokenizer"),
        ({"tokenizer.json": b"[1]"}, "not a tokenizer"),
        ({"tokenizer.json": b"\xff\xfe"}, "cannot be read"),
        ({"tokenizer.model": None, "tokenizer_config.json": b"{"}, "cannot be read"),
        ({"tokenizer.model": None, "tokenizer_config.json": b"[]"}, "JSON object"),
        ({"tokenizer.model": None, "tokenizer_config.json": b'{"bos_token": "<nope>"}'}, "<nope>"),
        (
            {"tokenizer.model": None, "tokenizer_config.json": b'{"add_eos_token": true}'},
            "add_eos_token",
        ),
        ({"tokenizer.model": None, "added_tokens.json": b'{"<x>": "one"}'}, "bad added token"),
        (
            {"tokenizer.model": None, "added_tokens.json": b'{"<image>": -200}'},
            "<image> has the id -200",
        ),
        (
            {"tokenizer.model": None, "tokenizer_config.json": b'{"add_bos_token": "false"}'},
            "add_bos_token must be true or false, not a string",
        ),
        (
            {"tokenizer.model": None, "tokenizer_config.json": b'{"legacy": 0}'},
            "legacy must be true or false, not a number",
        ),
        (
            {
                "tokenizer.model": None,
                "tokenizer_config.json": b'{"added_tokens_decoder": {"3": {}}}',
            },
            "content",
        ),
        (
            {"tokenizer.model": None, "tokenizer_config.json": b'{"added_tokens_decoder": []}'},
            "object",
        ),
    ],
)
def test_bad_directories_are_named(
    tmp_path: Path, sp_model: bytes, files: dict[str, bytes | None], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(sp_model if content is None else content)
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_that_adds_something_else_is_refused(bpe_json: str) -> None:
    with pytest.raises(DataError, match="expected one BOS"):
        FastTokenizer(
            with_added_bos(bpe_json, "<|eot_id|>"), special={"bos_token": "<|begin_of_text|>"}
        )
