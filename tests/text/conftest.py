"""Tokenizers for the text tests: two tiny ones trained here."""

import io

import pytest

from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.support.conversations import with_added_bos

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What is it? ASSISTANT: A cat. USER: Describe the picture. "
    "ASSISTANT: the quick brown fox jumps",
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content",
    "system user\n\nAnswer the questions.\nQ1? A1. Q2? A2. Café «près» 3 four\n",
]

LLAMA_3_SPECIAL = [
    "<|begin_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
]


@pytest.fixture(scope="session")
def sp_model() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session", params=[True, False], ids=["legacy", "new"])
def sp_tokenizer(request: pytest.FixtureRequest, sp_model: bytes) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(sp_model, legacy=request.param)


@pytest.fixture(scope="session")
def sp_legacy(sp_model: bytes) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(sp_model, legacy=True)


@pytest.fixture(scope="session")
def bpe_json() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=LLAMA_3_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


@pytest.fixture(scope="session")
def bpe_no_bos(bpe_json: str) -> FastTokenizer:
    return FastTokenizer(
        bpe_json, special={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    )


@pytest.fixture(scope="session")
def bpe_add_bos(bpe_json: str) -> FastTokenizer:
    return FastTokenizer(
        with_added_bos(bpe_json, "<|begin_of_text|>"),
        special={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    )
