"""Recorded tokenisation: ids, labels and inference prompts, by template and tokenizer variant."""

import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np

from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.parity.compare import Quantities
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN, Semantics
from densekit.text.encode import EncodedSample, SampleEncoder
from densekit.text.tokenizers.base import Tokenizer
from densekit.text.tokenizers.fast import FastTokenizer
from densekit.text.tokenizers.sentencepiece import SentencePieceTokenizer

_RESULT = re.compile(
    r"(?P<template>.+?)_(?P<variant>legacyfalse|legacytrue|nobos|addbos)_max(?P<max>\d+)$"
)
TOKENS_FILE = "tokens.json"
_PROMPTS = "_inference_prompts"


def check_tokenization(root: Path, path: Path, quantities: Quantities) -> None:
    """One file of tokenization/: results for every recorded conversation, or inference prompts."""
    recorded = read_json(path)
    if path.stem.endswith(_PROMPTS):
        _check_prompts(root, path.stem.removesuffix(_PROMPTS), recorded, quantities)
        return
    match = _RESULT.match(path.stem)
    if match is None:
        raise DataError(f"{path.name}: not a known kind of tokenisation record")
    encoder = SampleEncoder(
        tokenizer=_tokenizer(root, match["variant"]),
        template=match["template"],
        semantics="faithful",
        max_length=int(match["max"]),
    )
    _check_meta(recorded["meta"], encoder, match["variant"], quantities)
    conversations = read_json(path.parent / "conversations.json")
    kind = "plain" if match["template"] == "plain" else "chat"
    by_name = {entry["name"]: entry for entry in conversations[kind]}
    for result in recorded["results"]:
        _check_result(by_name[result["name"]], result, encoder, quantities)


def _check_meta(
    meta: dict[str, Any], encoder: SampleEncoder, variant: str, quantities: Quantities
) -> None:
    quantities.exact("settings", meta["model_max_length"], encoder.max_length)
    if "pad_id" in meta:
        quantities.exact("settings", meta["pad_id"], encoder.pad_id)
    if "legacy" in meta:
        quantities.exact("settings", bool(meta["legacy"]), variant == "legacytrue")
    if "tokenizer_adds_bos" in meta:
        quantities.exact("settings", bool(meta["tokenizer_adds_bos"]), variant == "addbos")


def _check_result(
    entry: dict[str, Any], result: dict[str, Any], encoder: SampleEncoder, quantities: Quantities
) -> None:
    try:
        sample = encoder.encode(entry["conversations"], has_image=bool(entry["has_image"]))
    except DataError:
        quantities.exact("refused", "refused", "refused" if result.get("error") else "accepted")
        return
    if result.get("error"):
        quantities.exact("refused", "accepted", "refused")
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
    """The human turn inside a recorded prompt; DataError when the template around it is another
    one.
    """
    marker = "\u241f"
    before, after = encoder.prompt([{"from": "human", "value": marker}], has_image=False).split(
        marker
    )
    if not (prompt.startswith(before) and prompt.endswith(after)):
        raise DataError(f"the recorded prompt is not of this template: {prompt[:60]!r}...")
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


def has_tokenizer(root: Path, folder: Path) -> bool:
    """Whether a model folder brings its tokenizer. A set without one must say so: it then holds
    tokens.json.
    """
    if (folder / "tokenizer.model").is_file() or (folder / "tokenizer.json").is_file():
        return True
    if not (root / TOKENS_FILE).is_file():
        raise DataError(
            f"{folder} has no tokenizer, and {root} no {TOKENS_FILE} with recorded ids instead of it"
        )
    return False


class RecordedEncoder:
    """Ids and labels from tokens.json, for a set of recordings that leaves a licensed tokenizer
    out.

    The file maps a template to a list of {"conversations", "has_image", "input_ids", "labels"}.
    """

    semantics: Semantics = "faithful"

    def __init__(self, root: Path, *, template: str, max_length: int) -> None:
        self.max_length = max_length
        recorded = read_json(root / TOKENS_FILE)
        self.pad_id: int = recorded["pad_id"]
        self._samples = {_key(entry["conversations"]): entry for entry in recorded[template]}

    def encode(self, conversations: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        """The recorded sample, text-only ones cut to max_length; DataError when the conversation is
        not among them.
        """
        entry = self._samples.get(_key(conversations))
        if entry is None or entry["has_image"] != has_image:
            raise DataError(f"{TOKENS_FILE} holds no ids for this conversation")
        end = None if has_image else self.max_length
        ids, labels = (
            np.array(entry[name], dtype=np.int64)[:end] for name in ("input_ids", "labels")
        )
        return EncodedSample(ids, labels, ())


def _key(conversations: list[dict[str, str]]) -> str:
    return json.dumps(conversations, sort_keys=True)
