"""Compares ids, labels, prompts, sequences and lengths with the numbers recorded from the official
code.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densekit.errors import DataError
from densekit.spec.types import IGNORE_INDEX
from densekit.text.encode import SampleEncoder
from densekit.text.lengths import modality_length
from densekit.text.sequence import model_sequence
from densekit.text.tokenizers.base import Tokenizer, load_tokenizer
from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.support.conversations import chat, label_runs, text_of, with_added_bos

LLAMA_3_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


@pytest.fixture(scope="module")
def llama_3_json(recorded: Path) -> str:
    return lzma.decompress((recorded / "tokenizer_llama3/tokenizer.json.xz").read_bytes()).decode()


@pytest.fixture(scope="module")
def tokenizers(recorded: Path, llama_3_json: str) -> dict[Any, Tokenizer]:
    model = (recorded / "tokenizer_llama2/tokenizer.model").read_bytes()
    return {
        True: SentencePieceTokenizer(model, legacy=True),
        False: load_tokenizer(recorded / "tokenizer_llama2"),
        "nobos": FastTokenizer(llama_3_json, special=LLAMA_3_NAMES),
        "addbos": FastTokenizer(
            with_added_bos(llama_3_json, LLAMA_3_NAMES["bos_token"]), special=LLAMA_3_NAMES
        ),
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_recorded_tokenization(recorded: Path, tokenizers: dict[Any, Tokenizer]) -> None:
    conversations = read(recorded / "tokenization/conversations.json")
    files = sorted((recorded / "tokenization").glob("*_max*.json"))
    assert files
    for path in files:
        recorded = read(path)
        meta = recorded["meta"]
        template = "llama_3" if path.name.startswith("llama_3") else path.name.split("_")[0]
        key = (
            meta["legacy"]
            if "legacy" in meta
            else "addbos"
            if meta["tokenizer_adds_bos"]
            else "nobos"
        )
        encoder = SampleEncoder(
            tokenizer=tokenizers[key],
            template=template,
            semantics="faithful",
            max_length=meta["model_max_length"],
        )
        assert encoder.pad_id == meta.get("pad_id", encoder.pad_id)
        group = conversations["plain" if template == "plain" else "chat"]
        by_name = {case["name"]: case for case in group}
        assert len(recorded["results"]) == len(group)
        for result in recorded["results"]:
            case = by_name[result["name"]]
            where = f"{path.name}: {result['name']}"
            if "error" in result:
                with pytest.raises(DataError):
                    encoder.encode(case["conversations"], has_image=bool(case["has_image"]))
                continue
            sample = encoder.encode(case["conversations"], has_image=bool(case["has_image"]))
            ids = result["input_ids"]
            labels = np.full(len(ids), IGNORE_INDEX)
            for start, end in result["label_spans"]:
                labels[start:end] = ids[start:end]
            assert sample.input_ids.tolist() == ids, where
            assert sample.labels.tolist() == labels.tolist(), where
            if "mismatch" in result.get("stdout", ""):
                assert "masked_mismatch" in sample.notes, where
            assert "labels_shifted" not in sample.notes, where


@pytest.mark.parametrize(("template", "key"), [("v1", False), ("v1", True), ("llama_3", "nobos")])
def test_fixed_supervises_every_recorded_conversation(
    recorded: Path, tokenizers: dict[Any, Tokenizer], template: str, key: Any
) -> None:
    encoder = SampleEncoder(
        tokenizer=tokenizers[key], template=template, semantics="fixed", max_length=100_000
    )
    for case in read(recorded / "tokenization/conversations.json")["chat"]:
        sample = encoder.encode(case["conversations"], has_image=bool(case["has_image"]))
        turns = case["conversations"][case["conversations"][0]["from"] == "gpt" :]
        answers = [turn["value"] for turn in turns if turn["from"] == "gpt"]
        runs = label_runs(sample, tokenizers[key])
        assert len(runs) == len(answers), case["name"]
        end = "</s>" if template == "v1" else "<|eot_id|>"
        for run, answer in zip(runs, answers, strict=True):
            squeezed = "".join((answer + end).split())
            assert "".join(run.split()) == squeezed, case["name"]


@pytest.mark.parametrize(("template", "key"), [("v1", False), ("v1", True), ("llama_3", "nobos")])
def test_recorded_prompts(
    recorded: Path, tokenizers: dict[Any, Tokenizer], template: str, key: Any
) -> None:
    encoder = SampleEncoder(
        tokenizer=tokenizers[key], template=template, semantics="faithful", max_length=9
    )
    prompts = read(recorded / f"tokenization/{template}_inference_prompts.json")["prompts"]
    header = {
        "v1": ("USER: ", " ASSISTANT:"),
        "llama_3": ("user<|end_header_id|>\n\n", "<|eot_id|>"),
    }[template]
    for prompt in prompts:
        question = prompt["prompt"].split(header[0], 1)[1].rsplit(header[1], 1)[0]
        turns = chat(question)
        assert encoder.prompt(turns, has_image=True) == prompt["prompt"]
        assert encoder.encode_prompt(turns, has_image=True).tolist() == prompt["input_ids"], prompt[
            "name"
        ]


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    ("run", "image_tokens", "limit"),
    [("clip_dci", 16, 128), ("clip_sti", 20, 128), ("siglip_dci", 729, 1024)],
)
def test_recorded_sequences(
    recorded: Path,
    tokenizers: dict[Any, Tokenizer],
    run: str,
    image_tokens: int,
    limit: int,
    stage: int,
) -> None:
    encoder = SampleEncoder(
        tokenizer=tokenizers[False],
        template="plain" if stage == 1 else "v1",
        semantics="faithful",
        max_length=limit,
    )
    batch = read(recorded / f"data/stage{stage}_batch.json")
    with np.load(recorded / run / f"stage{stage}.npz") as recorded:
        assert len(batch) == len(recorded["batch/input_ids"])
        for index, entry in enumerate(batch):
            sample = encoder.encode(entry["conversations"], has_image="image" in entry)
            assert np.array_equal(sample.input_ids, recorded[f"sample{index}/input_ids"])
            assert np.array_equal(sample.labels, recorded[f"sample{index}/labels"])
            row = model_sequence(
                sample,
                pad_id=encoder.pad_id,
                image_tokens=image_tokens,
                max_length=limit,
                semantics="faithful",
            )
            mask = recorded["mm/attention_mask"][index].astype(bool)
            length = int(mask.sum())
            assert mask[:length].all()
            assert np.array_equal(row.labels, recorded["mm/labels"][index][:length])


def test_recorded_modality_lengths(recorded: Path) -> None:
    lengths = read(recorded / "sampler/sampler.json")["stage2_train_modality_lengths"]
    data = read(recorded / "data/stage2_train.json")
    assert [modality_length(entry["conversations"], "image" in entry) for entry in data] == lengths


def test_added_bos_masks_every_sample_of_several_rounds(
    recorded: Path, tokenizers: dict[Any, Tokenizer]
) -> None:
    plain_ids, added = (
        SampleEncoder(
            tokenizer=tokenizers[key], template="llama_3", semantics="faithful", max_length=100_000
        )
        for key in ("nobos", "addbos")
    )
    seen = 0
    for case in read(recorded / "tokenization/conversations.json")["chat"]:
        image = bool(case["has_image"])
        without = plain_ids.encode(case["conversations"], has_image=image)
        sample = added.encode(case["conversations"], has_image=image)
        assert sample.input_ids[:2].tolist() == [128000, 128000]
        if "masked_mismatch" in without.notes:
            continue
        rounds = len(label_runs(without, tokenizers["nobos"]))
        assert ("masked_mismatch" in sample.notes) == (rounds > 1), case["name"]
        if image and rounds == 1 and "<image>" in case["conversations"][0]["value"]:
            assert "<image>\n" in text_of(sample, tokenizers["addbos"])
            assert "<image>\n" not in text_of(without, tokenizers["nobos"])
            seen += 1
    assert seen
