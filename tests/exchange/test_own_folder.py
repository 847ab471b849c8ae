"""A folder in densekit's own format whose config.json was changed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.exchange.pipeline import load_pipeline

CONFIG: dict[str, Any] = {
    "model_type": "dense_connector",
    "conversation": {
        "template": "v1",
        "semantics": "faithful",
        "image_aspect_ratio": "pad",
        "anyres": None,
        "max_length": 64,
    },
    "text_config": {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "image_size": 56,
        "patch_size": 14,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    "connector": {"kind": "none"},
}
MINING = {"image_size": 128, "window": 8, "drop_path": 0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "no tokenizer in"),
        ({"connector": {"kind": "other"}}, "connector kind 'other' is not one of"),
        ({"connector": [1]}, "a section has another form than densekit writes"),
        ({"connector": {"kind": "none", "mining": MINING}}, "high-resolution tower go together"),
        ({"connector": {"kind": "sci", "layers": [9]}}, "is asked of a tower of 4 layers"),
        ({"anyres": {"pinpoints": [[56, 100]], "merge": "flat"}}, "no multiple of the tower's 56"),
        ({"vision_config": {"model_type": "llama"}}, "vision tower of type 'llama'"),
        ({"text_config": {"model_type": "other"}}, "Unrecognized model identifier"),
        ({"text_config": "other"}, "a section has another form than densekit writes"),
        ({"conversation": [1]}, "config.json: Input should be"),
    ],
)
def test_a_changed_configuration_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changed), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_pipeline(tmp_path)
