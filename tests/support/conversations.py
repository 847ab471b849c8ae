"""Short forms the text tests share."""

import json

from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.text.encode import EncodedSample
from densekit.text.tokenizers.base import Tokenizer


def chat(*values: str) -> list[dict[str, str]]:
    """Return alternating turns, the first one human."""
    return [
        {"from": "human" if i % 2 == 0 else "gpt", "value": value} for i, value in enumerate(values)
    ]


def label_runs(sample: EncodedSample, tokenizer: Tokenizer) -> list[str]:
    """Return the text of each unbroken run of labels."""
    runs: list[list[int]] = [[]]
    for label in sample.labels.tolist():
        if label == IGNORE_INDEX:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def text_of(sample: EncodedSample, tokenizer: Tokenizer) -> str:
    """Return the text of a sample's ids, `<image>` standing for an image tag."""
    runs: list[list[int]] = [[]]
    for token_id in sample.input_ids.tolist():
        if token_id == IMAGE_TOKEN_ID:
            runs.append([])
        else:
            runs[-1].append(token_id)
    return "<image>".join(tokenizer.decode(run) for run in runs)


def with_added_bos(tokenizer_json: str, bos: str) -> str:
    """Return the JSON of the same tokenizer with a post-processor that puts a BOS before every
    text.
    """
    config = json.loads(tokenizer_json)
    bos_id = next(token["id"] for token in config["added_tokens"] if token["content"] == bos)
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }
    config["post_processor"] = {
        "type": "Sequence",
        "processors": [config["post_processor"], template],
    }
    return json.dumps(config)
