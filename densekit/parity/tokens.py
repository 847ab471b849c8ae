"""Recorded tokenization: ids, labels and inference prompts, by template and tokenizer variant."""

import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np

from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.parity.compare import Quantities
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import Tokenizer
from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer

_RESULT = re.compile(
    r"(?P<template>.+?)_(?P<variant>legacyfalse|legacytrue|nobos|addbos)_max(?P<max>\d+)$"
)
_PROMPTS = "_inference_prompts"


def check_tokenization(root: Path, path: Path, quantities: Quantities) -> None:
    """One file of tokenization/: results for every recorded conversation, or inference prompts."""
    recorded = read_json(path)
    if path.stem.endswith(_PROMPTS):
        _check_prompts(root, path.stem.removesuffix(_PROMPTS), recorded, quantities)
        return
    match = _RESULT.match(path.stem)
    if match is None:
        raise DataError(f"{path.name}: not a known kind of tokenization record")
    tokenizer = _tokenizer(root, match["variant"])
    encoder = SampleEncoder(
        tokenizer=tokenizer,
        template=match["template"],
        semantics="faithful",
        max_length=int(match["max"]),
    )
    _check_meta(recorded["meta"], tokenizer, encoder, quantities)
    conversations = read_json(path.parent / "conversations.json")
    kind = "plain" if match["template"] == "plain" else "chat"
    by_name = {entry["name"]: entry for entry in conversations[kind]}
    for result in recorded["results"]:
        _check_result(by_name[result["name"]], result, encoder, quantities)


def _check_meta(
    meta: dict[str, Any], tokenizer: Tokenizer, encoder: SampleEncoder, quantities: Quantities
) -> None:
    for name, ours in (
        ("model_max_length", encoder.max_length),
        ("pad_id", encoder.pad_id),
        ("legacy", tokenizer.legacy),
        ("tokenizer_adds_bos", tokenizer.adds_bos),
    ):
        if name in meta:
            quantities.exact("settings", ours, meta[name])


def _check_result(
    entry: dict[str, Any], result: dict[str, Any], encoder: SampleEncoder, quantities: Quantities
) -> None:
    sample = quantities.refused(
        result["name"],
        result.get("error"),
        lambda: encoder.encode(entry["conversations"], has_image=bool(entry["has_image"])),
    )
    if sample is None:
        return
    ids = np.array(result["input_ids"], dtype=np.int64)
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
    for start, end in result["label_spans"]:
        labels[start:end] = ids[start:end]
    quantities.close("input_ids", sample.input_ids, ids, 0.0)
    quantities.close("labels", sample.labels, labels, 0.0)


def _check_prompts(
    root: Path, template: str, recorded: dict[str, Any], quantities: Quantities
) -> None:
    variant = "nobos" if template == "llama_3" else "legacyfalse"
    encoder = SampleEncoder(
        tokenizer=_tokenizer(root, variant),
        template=template,
        semantics="faithful",
        max_length=2048,
    )
    for prompt in recorded["prompts"]:
        turn = {"from": "human", "value": user_text(prompt["prompt"], encoder)}
        ids = encoder.encode_prompt([turn], has_image=IMAGE_TOKEN in turn["value"])
        quantities.close("prompt_ids", ids, np.array(prompt["input_ids"], dtype=np.int64), 0.0)


def user_text(prompt: str, encoder: SampleEncoder) -> str:
    """The human turn inside a recorded prompt; DataError when the text around it is not that of
    the encoder's template.
    """
    marker = "\u241f"
    before, after = encoder.prompt([{"from": "human", "value": marker}], has_image=False).split(
        marker
    )
    if not (prompt.startswith(before) and prompt.endswith(after)):
        raise DataError(f'this recorded prompt does not fit its template: "{prompt[:60]}..."')
    return prompt[len(before) : len(prompt) - len(after)]


def _tokenizer(root: Path, variant: str) -> Tokenizer:
    """The tokenizer of a variant: Llama-2's file in both legacy modes, Llama-3's with and without
    an added BOS.
    """
    if variant.startswith("legacy"):
        model = (root / "tokenizer_llama2" / "tokenizer.model").read_bytes()
        return SentencePieceTokenizer(model, legacy=variant == "legacytrue")
    text = lzma.decompress((root / "tokenizer_llama3" / "tokenizer.json.xz").read_bytes()).decode()
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    return FastTokenizer(_with_bos(text) if variant == "addbos" else text, special=special)


def _with_bos(text: str) -> str:
    """A tokenizer.json whose post-processor also puts <|begin_of_text|> first, as Llama-3's was
    changed to.
    """
    config = json.loads(text)
    bos = next(
        token["id"] for token in config["added_tokens"] if token["content"] == "<|begin_of_text|>"
    )
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|begin_of_text|>": {
                "id": "<|begin_of_text|>",
                "ids": [bos],
                "tokens": ["<|begin_of_text|>"],
            }
        },
    }
    config["post_processor"] = {
        "type": "Sequence",
        "processors": [config["post_processor"], template],
    }
    return json.dumps(config)
