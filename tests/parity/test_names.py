"""One name for a parameter under densekit's, the official code's and peft's names."""

import pytest

from densekit.errors import DataError
from densekit.parity.names import by_official_name, official_name, official_names

ADAPTER = "model.layers.11.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("projector.0.weight", "model.mm_projector.0.weight"),
        ("connector.2.bias", "model.mm_projector.2.bias"),
        ("mm_projector.2.bias", "model.mm_projector.2.bias"),
        ("2.bias", "model.mm_projector.2.bias"),
        ("model.mm_projector.0.weight", "model.mm_projector.0.weight"),
        ("base_model.model.model.mm_projector.0.weight", "model.mm_projector.0.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("base_model.model.lm_head.weight", "lm_head.weight"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm.weight"),
        (f"language_model.{ADAPTER}".replace(".weight", ".default.weight"), ADAPTER),
        (f"base_model.model.{ADAPTER}".replace(".weight", ".default.weight"), ADAPTER),
        (f"base_model.model.{ADAPTER}", ADAPTER),
        (ADAPTER, ADAPTER),
    ],
)
def test_every_spelling_has_one_official_name(name: str, official: str) -> None:
    assert official_name(name) == official
    assert official_name(official) == official


def test_two_names_of_one_parameter_are_an_error() -> None:
    named = {"0.weight": 1, "projector.0.weight": 2, "2.bias": 3}
    with pytest.raises(DataError, match=r"same parameter: 0\.weight, projector\.0\.weight"):
        by_official_name(named)
    assert official_names(["2.bias", "0.bias"]) == [
        "model.mm_projector.0.bias",
        "model.mm_projector.2.bias",
    ]
