"""Tests of ids, labels and notes of samples: every template's mapping, and each observation of
docs/upstream.md in both semantics.
"""

import re
from dataclasses import replace

import numpy as np
import pytest

from densekit.errors import DataError, UsageError
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.text.encode import EncodedSample, SampleEncoder
from densekit.text.official_walk import Walk
from densekit.text.templates import get_template
from densekit.text.tokenizers.base import Encoding, Tokenizer
from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import AddedToken, SentencePieceTokenizer
from tests.support.conversations import chat, label_runs, text_of, with_added_bos

HELLO = chat("Q1?", "A1.")


def chatml_tokenizer(model: bytes, *, legacy: bool) -> SentencePieceTokenizer:
    added = [AddedToken(content="<|im_start|>", id=480), AddedToken(content="<|im_end|>", id=481)]
    return SentencePieceTokenizer(
        model, legacy=legacy, add_bos=False, special={"eos_token": "<|im_end|>"}, added=added
    )


@pytest.fixture(scope="module")
def yi_like(sp_model: bytes) -> SentencePieceTokenizer:
    return chatml_tokenizer(sp_model, legacy=True)


def encode(
    tokenizer: Tokenizer,
    template: str,
    semantics: str,
    turns: list[dict[str, str]],
    *,
    image: bool = False,
    limit: int = 2048,
) -> EncodedSample:
    encoder = SampleEncoder(
        tokenizer=tokenizer, template=template, semantics=semantics, max_length=limit
    )  # type: ignore[arg-type]
    return encoder.encode(turns, has_image=image)


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_v1_supervises_answers_and_end(sp_legacy: SentencePieceTokenizer, semantics: str) -> None:
    sample = encode(
        sp_legacy, "v1", semantics, chat("<image>\nQ1?", "A1.", "Q2?", "A2."), image=True
    )
    assert label_runs(sample, sp_legacy) == ["A1.</s>", "A2.</s>"]
    assert sample.notes == ()
    assert sample.input_ids.dtype == sample.labels.dtype == np.int64
    kept = sample.labels != IGNORE_INDEX
    assert (sample.labels[kept] == sample.input_ids[kept]).all()


def test_v1_counts_the_lone_space_before_an_answer(sp_tokenizer: SentencePieceTokenizer) -> None:
    for semantics in ("faithful", "fixed"):
        sample = encode(sp_tokenizer, "v1", semantics, chat("Q?", "🦙"))
        assert (sample.labels != IGNORE_INDEX).sum() == 1 + 4 + 1
        assert sample.notes == ()


def test_template_without_official_branch_uses_spans(bpe_no_bos: FastTokenizer) -> None:
    turns = chat("<image>\nQ1?", "A1.", "Q2?", "A2.", "trailing")
    both = [encode(bpe_no_bos, "phi", s, turns, image=True) for s in ("faithful", "fixed")]
    assert np.array_equal(both[0].labels, both[1].labels)
    assert np.array_equal(both[0].input_ids, both[1].input_ids)
    assert label_runs(both[0], bpe_no_bos) == [" A1.<|endoftext|>", " A2.<|endoftext|>"]
    assert bpe_no_bos.bos_id not in both[0].input_ids


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_chatml_direct_agrees_with_the_spans(
    yi_like: SentencePieceTokenizer, rounds: int, image: bool
) -> None:
    """Yi's tokenizer is legacy and adds no BOS."""
    turns = chat(*(["What is it?", "A cat. the fox"] * rounds))
    if image:
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    both = [encode(yi_like, "chatml_direct", s, turns, image=image) for s in ("faithful", "fixed")]
    assert np.array_equal(both[0].labels, both[1].labels)
    assert np.array_equal(both[0].input_ids, both[1].input_ids)
    assert both[0].notes == () and len(label_runs(both[0], yi_like)) == rounds


@pytest.mark.parametrize(
    ("turns", "answers"),
    [
        (chat("Q1?", "A1.", "trailing"), 1),
        (chat("Q1?", "A1.", "Q2?", ""), 2),
        (chat("Q1?", "", "Q2?", "A2."), 2),
        (chat("What is <|im_end|>?", "A1."), 1),
        (chat("Q1?", "the <unk> cat"), 1),
    ],
    ids=["trailing human turn", "empty last", "empty middle", "end token", "unknown token"],
)
def test_chatml_direct_samples_the_official_code_masks(
    yi_like: SentencePieceTokenizer, turns: list[dict[str, str]], answers: int
) -> None:
    faithful = encode(yi_like, "chatml_direct", "faithful", turns)
    assert faithful.notes == ("masked_mismatch",)
    assert (faithful.labels == IGNORE_INDEX).all()
    fixed = encode(yi_like, "chatml_direct", "fixed", turns)
    assert fixed.notes == () and len(label_runs(fixed, yi_like)) == answers


def test_chatml_direct_masks_everything_for_another_tokenizer(sp_model: bytes) -> None:
    """The official code counts the end tokens only where `legacy` is true."""
    sample = encode(chatml_tokenizer(sp_model, legacy=False), "chatml_direct", "faithful", HELLO)
    assert sample.notes == ("masked_mismatch",)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (chat("Q1?", "A1.", "Q2?"), ["A1.</s>"]),
        (chat("Q1?", ""), ["</s>"]),
        (chat("", "A1."), ["A1.</s>"]),
        (chat("What is </s>?", "A1."), ["A1.</s>"]),
        (chat("Q1?", "the </s> cat"), ["the </s>cat</s>"]),
        (chat("the ASSISTANT: cat", "A1."), ["A1.</s>"]),
        (chat("the <unk>", "A1."), ["A1.</s>"]),
    ],
)
def test_v1_samples_the_official_code_masks(
    sp_legacy: SentencePieceTokenizer, turns: list[dict[str, str]], expected: list[str]
) -> None:
    faithful = encode(sp_legacy, "v1", "faithful", turns)
    assert faithful.notes == ("masked_mismatch",)
    assert (faithful.labels == IGNORE_INDEX).all()
    fixed = encode(sp_legacy, "v1", "fixed", turns)
    assert fixed.notes == ()
    assert [run.replace("> cat", ">cat") for run in label_runs(fixed, sp_legacy)] == expected


def test_v1_empty_middle_answer(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("Q1?", "", "Q2?", "A2.")
    faithful = encode(sp_legacy, "v1", "faithful", turns)
    assert "ASSISTANT:USER: Q2?" in text_of(faithful, sp_legacy)
    assert label_runs(faithful, sp_legacy) == ["A2.</s>"]
    assert label_runs(encode(sp_legacy, "v1", "fixed", turns), sp_legacy) == ["</s>", "A2.</s>"]


def test_over_long_samples_are_not_checked(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("<image>\nQ1?", "A1. <unk>", "Q2?", "A2.")
    checked = encode(sp_legacy, "v1", "faithful", turns, image=True)
    assert checked.notes == ("masked_mismatch",)
    unchecked = encode(sp_legacy, "v1", "faithful", turns, image=True, limit=len(checked.input_ids))
    assert unchecked.notes == ()
    assert len(label_runs(unchecked, sp_legacy)) == 2


def test_only_text_samples_are_truncated(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("Q1?", "the cat " * 20)
    for semantics in ("faithful", "fixed"):
        whole = encode(sp_legacy, "v1", semantics, turns)
        cut = encode(sp_legacy, "v1", semantics, turns, limit=len(whole.input_ids) - 3)
        assert cut.notes == ("truncated",)
        assert np.array_equal(cut.labels, whole.labels[:-3])
        image = encode(
            sp_legacy, "v1", semantics, turns, image=True, limit=len(whole.input_ids) - 3
        )
        assert np.array_equal(image.labels, whole.labels)
        gone = encode(sp_legacy, "v1", semantics, turns, limit=10)
        assert gone.notes == ("truncated", "no_labels")


def test_tags_collapse_to_the_front_with_an_image_only(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("What <image> is<image> it?", "A1.")
    sample = encode(sp_legacy, "v1", "faithful", turns, image=True)
    assert "USER: <image>\nWhat  is it? ASSISTANT" in text_of(sample, sp_legacy).replace(
        "<image> \n", "<image>\n"
    )
    text_only = encode(sp_legacy, "v1", "faithful", turns)
    assert IMAGE_TOKEN_ID not in text_only.input_ids
    assert "What <image> is<image> it?" in text_of(text_only, sp_legacy)


def test_a_tag_in_an_answer_is_an_image_only_officially(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("<image>\nQ1?", "the <image> cat")
    faithful = encode(sp_legacy, "v1", "faithful", turns, image=True)
    assert (faithful.input_ids == IMAGE_TOKEN_ID).sum() == 2
    assert (faithful.labels == IMAGE_TOKEN_ID).sum() == 1
    fixed = encode(sp_legacy, "v1", "fixed", turns, image=True)
    assert (fixed.input_ids == IMAGE_TOKEN_ID).sum() == 1
    assert label_runs(fixed, sp_legacy) == ["the <image> cat</s>"]


def test_plain(sp_tokenizer: SentencePieceTokenizer) -> None:
    turns = chat("Describe it.\n<image>", "the <image> cat")
    faithful = encode(sp_tokenizer, "plain", "faithful", turns, image=True)
    assert faithful.input_ids.tolist()[:3] == [1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID]
    assert faithful.labels.tolist()[:3] == [IGNORE_INDEX, IGNORE_INDEX, IMAGE_TOKEN_ID]
    fixed = encode(sp_tokenizer, "plain", "fixed", turns, image=True)
    assert label_runs(fixed, sp_tokenizer) == ["the <image> cat\n"]
    assert fixed.input_ids.tolist()[:2] == [1, IMAGE_TOKEN_ID]
    assert (fixed.labels != IGNORE_INDEX).sum() == len(fixed.labels) - 2
    empty = encode(sp_tokenizer, "plain", "fixed", chat("<image>", ""), image=True)
    assert np.array_equal(
        empty.labels,
        encode(sp_tokenizer, "plain", "faithful", chat("<image>", ""), image=True).labels,
    )


@pytest.mark.parametrize(
    ("bos", "added"),
    [("<|begin_of_text|>", False), ("<|begin_of_text|>", True), ("<|endoftext|>", False)],
)
def test_plain_of_a_tokenizer_without_a_pad_token(bpe_json: str, bos: str, added: bool) -> None:
    """Llama-3 without and with an added BOS, Phi-2 (its BOS, never added, is its end and unknown
    token): stage 1 asks no more of a tokenizer, and both semantics agree.
    """
    vocabulary = with_added_bos(bpe_json, bos) if added else bpe_json
    special = {"bos_token": bos, "eos_token": bos if bos == "<|endoftext|>" else "<|eot_id|>"}
    tokenizer = FastTokenizer(
        vocabulary, special=special | ({"unk_token": bos} if bos == "<|endoftext|>" else {})
    )
    turns = chat("Describe it.\n<image>", "the quick brown fox")
    faithful, fixed = (
        encode(tokenizer, "plain", semantics, turns, image=True)
        for semantics in ("faithful", "fixed")
    )
    assert (
        faithful.input_ids.tolist() == fixed.input_ids.tolist()
        and faithful.labels.tolist() == fixed.labels.tolist()
        and faithful.notes == fixed.notes == ()
    )
    assert label_runs(faithful, tokenizer) == ["the quick brown fox\n"]
    assert faithful.input_ids.tolist()[: 1 + added] == ([tokenizer.bos_id] if added else []) + [
        IMAGE_TOKEN_ID
    ]


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_plain_has_its_image_also_where_the_entry_names_none(
    sp_legacy: SentencePieceTokenizer, semantics: str
) -> None:
    with_image, without = (
        encode(sp_legacy, "plain", semantics, chat("<image>", "the cat"), image=image)
        for image in (True, False)
    )
    assert without.input_ids.tolist()[:2] == [1, IMAGE_TOKEN_ID]
    assert without.input_ids.tolist() == with_image.input_ids.tolist()
    assert without.labels.tolist() == with_image.labels.tolist()


def test_official_plain_never_looks_at_who_speaks(sp_legacy: SentencePieceTokenizer) -> None:
    turns = chat("<image>", "the cat")
    swapped = [
        turn | {"from": speaker} for turn, speaker in zip(turns, ("gpt", "human"), strict=True)
    ]
    usual, other = (
        encode(sp_legacy, "plain", "faithful", each, image=True) for each in (turns, swapped)
    )
    assert other.notes == usual.notes == ()
    assert other.input_ids.tolist() == usual.input_ids.tolist()
    assert other.labels.tolist() == usual.labels.tolist()
    with pytest.raises(DataError, match="expected 2 turns, found 1"):
        encode(sp_legacy, "plain", "fixed", swapped, image=True)


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
@pytest.mark.parametrize("turns", [chat("<image>", "a", "b"), chat("<image>"), chat("no tag", "a")])
def test_plain_refuses_other_shapes(
    sp_legacy: SentencePieceTokenizer, semantics: str, turns: list[dict[str, str]]
) -> None:
    with pytest.raises(DataError, match="plain"):
        encode(sp_legacy, "plain", semantics, turns, image=True)


def test_first_turn_from_gpt_is_dropped(sp_legacy: SentencePieceTokenizer) -> None:
    turns = [{"from": "gpt", "value": "I start."}, *chat("Q1?", "A1.")]
    for semantics in ("faithful", "fixed"):
        sample = encode(sp_legacy, "v1", semantics, turns)
        assert sample.notes == ("first_turn_dropped",)
        assert np.array_equal(
            sample.input_ids, encode(sp_legacy, "v1", semantics, chat("Q1?", "A1.")).input_ids
        )
    assert encode(sp_legacy, "v1", "faithful", turns[:1]).notes == (
        "first_turn_dropped",
        "masked_mismatch",
    )
    with pytest.raises(DataError, match="no turn is left"):
        encode(sp_legacy, "v1", "fixed", turns[:1])


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "at least one turn"),
        ([*chat("Q"), {"from": "human", "value": "x"}], "turn 1: .*'human', expected 'gpt'"),
        ([{"from": "bot", "value": "x"}], "turn 0: .*'bot'"),
        ([*chat("Q"), {"from": "gpt"}], "turn 1: .*value"),
        ([{"value": "x"}], "turn 0"),
        (["x"], "turn 0"),
    ],
)
def test_bad_turns_are_named(
    sp_legacy: SentencePieceTokenizer, semantics: str, turns: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(sp_legacy, "v1", semantics, turns)


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_llama_3_supervises_answers_and_end(bpe_no_bos: FastTokenizer, semantics: str) -> None:
    sample = encode(
        bpe_no_bos, "llama_3", semantics, chat("<image>\nQ1?", "A1.", "Q2?", "A2."), image=True
    )
    assert label_runs(sample, bpe_no_bos) == ["A1.<|eot_id|>", "A2.<|eot_id|>"]
    newline = text_of(sample, bpe_no_bos).count("<image>\nQ1?")
    assert newline == (1 if semantics == "fixed" else 0)
    header = "system" if semantics == "faithful" else "assistant"
    assert f"<|start_header_id|>{header}<|end_header_id|>\n\nA1." in text_of(sample, bpe_no_bos)


def test_llama_3_image_in_a_later_turn(bpe_no_bos: FastTokenizer) -> None:
    turns = chat("Q1?", "A1.", "<image>\nQ2?", "A2.")
    assert encode(bpe_no_bos, "llama_3", "faithful", turns, image=True).notes == (
        "masked_mismatch",
    )
    fixed = encode(bpe_no_bos, "llama_3", "fixed", turns, image=True)
    assert label_runs(fixed, bpe_no_bos) == ["A1.<|eot_id|>", "A2.<|eot_id|>"]


def test_llama_3_with_an_added_bos(bpe_add_bos: FastTokenizer) -> None:
    bos = bpe_add_bos.bos_id
    one, two = chat("<image>\nQ1?", "A1."), chat("<image>\nQ1?", "A1.", "Q2?", "A2.")
    faithful = encode(bpe_add_bos, "llama_3", "faithful", one, image=True)
    assert faithful.notes == ()
    assert (faithful.input_ids == bos).sum() == 2
    assert label_runs(faithful, bpe_add_bos) == ["A1.<|eot_id|>"]
    masked = encode(bpe_add_bos, "llama_3", "faithful", two, image=True)
    assert masked.notes == ("masked_mismatch",)
    unchecked = encode(bpe_add_bos, "llama_3", "faithful", two, image=True, limit=20)
    assert unchecked.notes == ("labels_shifted",)
    runs = label_runs(unchecked, bpe_add_bos)
    assert runs[0] == "A1.<|eot_id|>"
    assert runs[1].endswith(".<|eot_id|>") and not runs[1].startswith("A2")
    for turns in (one, two):
        fixed = encode(bpe_add_bos, "llama_3", "fixed", turns, image=True)
        assert (fixed.input_ids == bos).sum() == 1
        assert "<image>\nQ1?" in text_of(fixed, bpe_add_bos)
        assert len(label_runs(fixed, bpe_add_bos)) == len(turns) // 2


def test_llama_3_empty_answer(bpe_no_bos: FastTokenizer) -> None:
    turns = chat("Q1?", "")
    assert encode(bpe_no_bos, "llama_3", "faithful", turns).notes == ("masked_mismatch",)
    assert label_runs(encode(bpe_no_bos, "llama_3", "fixed", turns), bpe_no_bos) == ["<|eot_id|>"]


def test_pad_ids(sp_legacy: SentencePieceTokenizer, bpe_no_bos: FastTokenizer) -> None:
    def pad(tokenizer: Tokenizer, template: str) -> int:
        return SampleEncoder(
            tokenizer=tokenizer, template=template, semantics="fixed", max_length=9
        ).pad_id

    assert pad(sp_legacy, "v1") == 0
    assert pad(bpe_no_bos, "llama_3") == bpe_no_bos.token_id("<|reserved_special_token_0|>")
    assert pad(bpe_no_bos, "chatml_direct") == bpe_no_bos.eos_id


def test_bad_settings(sp_legacy: SentencePieceTokenizer, bpe_json: str) -> None:
    with pytest.raises(UsageError, match="template"):
        encode(sp_legacy, "v9", "fixed", [])
    with pytest.raises(UsageError, match="max_length"):
        encode(sp_legacy, "v1", "fixed", [], limit=0)
    with pytest.raises(UsageError, match="pad"):
        encode(FastTokenizer(bpe_json), "phi", "fixed", [])


def test_prompt_leaves_the_last_answer_open(sp_legacy: SentencePieceTokenizer) -> None:
    encoder = SampleEncoder(tokenizer=sp_legacy, template="v1", semantics="fixed", max_length=9)
    turns = chat("Q1?", "A1.", "Look at <image>", "ignored")
    assert encoder.prompt(turns, has_image=True).endswith("A1.</s>USER: Look at <image> ASSISTANT:")
    ids = encoder.encode_prompt(turns, has_image=True)
    assert (ids == IMAGE_TOKEN_ID).sum() == 1
    assert IMAGE_TOKEN_ID not in encoder.encode_prompt(turns, has_image=False)
    plain = SampleEncoder(tokenizer=sp_legacy, template="plain", semantics="fixed", max_length=9)
    assert plain.encode_prompt(turns, has_image=True).tolist() == [1, IMAGE_TOKEN_ID]
    with pytest.raises(DataError, match="human turn"):
        encoder.prompt([{"from": "gpt", "value": "x"}], has_image=False)


class _WordTokenizer:
    """One id per word or end token, but two for USER at the start of a text, as in the Llama-2
    vocabulary.
    """

    bos_id, eos_id, unk_id, vocab_size, adds_bos = 1, 2, 0, 1000, True

    def __init__(self, *, legacy: bool) -> None:
        self.legacy = legacy
        self._ids = {"</s>": 2}

    def encode(self, text: str) -> Encoding:
        pattern = r"^USE|(?<=^USE)R|</s>|:|[^\s:<]+| (?=$|<)"
        matches = list(re.finditer(pattern, text))
        ids = [self._ids.setdefault(match.group(), 10 + len(self._ids)) for match in matches]
        return Encoding([1, *ids], [(0, 0), *(match.span() for match in matches)])

    def decode(self, ids: list[int]) -> str:
        names = {token_id: text for text, token_id in self._ids.items()}
        return " ".join(names[token_id] for token_id in ids)

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)


def test_later_rounds_count_one_less_unless_legacy() -> None:
    turns = chat("Q1?", "A1.", "Q2?", "A2.", "Q3?", "A3.")
    new = _WordTokenizer(legacy=False)
    sample = encode(new, "v1", "faithful", turns)
    assert label_runs(sample, new) == ["A1. </s>", "A2. </s>", "A3. </s>"]
    assert sample.notes == ()
    assert encode(_WordTokenizer(legacy=True), "v1", "faithful", turns).notes == (
        "masked_mismatch",
    )


def test_a_sample_is_truncated_from_one_id_over_the_maximum(
    sp_legacy: SentencePieceTokenizer,
) -> None:
    whole = encode(sp_legacy, "v1", "fixed", HELLO)
    length = len(whole.input_ids)
    assert encode(sp_legacy, "v1", "fixed", HELLO, limit=length).notes == ()
    cut = encode(sp_legacy, "v1", "fixed", HELLO, limit=length - 1)
    assert cut.notes == ("truncated",)
    assert cut.input_ids.tolist() == whole.input_ids[:-1].tolist()


def test_one_id_is_the_smallest_maximum(sp_legacy: SentencePieceTokenizer) -> None:
    sample = encode(sp_legacy, "v1", "fixed", HELLO, limit=1)
    assert (len(sample.input_ids), sample.notes) == (1, ("truncated", "no_labels"))
    with pytest.raises(UsageError, match="at least 1"):
        encode(sp_legacy, "v1", "fixed", HELLO, limit=0)


def test_a_sample_that_the_official_code_leaves_without_labels_is_not_called_shifted(
    sp_legacy: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(walk: Walk, text: str, ids: np.ndarray) -> tuple[np.ndarray, bool]:
        return np.full_like(ids, IGNORE_INDEX), True

    template = replace(get_template("v1"), official_labels=nothing)
    monkeypatch.setattr("densekit.text.encode.get_template", lambda name: template)
    assert encode(sp_legacy, "v1", "faithful", HELLO).notes == ("no_labels",)
