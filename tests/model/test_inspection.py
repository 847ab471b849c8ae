"""What is found about models before a run directory exists: each fault by file and value, with what
to do.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from densekit.model.inspection import inspect
from densekit.spec.connector import Connector
from densekit.spec.model_parts import ModelParts
from tests.support.files import write_json


def parts(
    golden: Path, folder: Path, *, llm: Any = None, tower: Any = None, **changes: Any
) -> ModelParts:
    """The recorded models, with these values in their config.json; a value None is removed."""
    folders = {}
    for name, model, values in (("llm", "llm_tiny", llm), ("tower", "clip_tiny", tower)):
        config = json.loads((golden / "models" / model / "config.json").read_text())
        config = {k: v for k, v in {**config, **(values or {})}.items() if v is not None}
        write_json(folder / name / "config.json", config)
        folders[name] = folder / name
    given = {
        "language_model": folders["llm"],
        "vision_tower": folders["tower"],
        "connector": Connector(kind="sci", layers=(7, 15)),
        "connector_weights": None,
        "max_length": 128,
    }
    return ModelParts(**{**given, **changes})


def test_nothing_is_wrong_with_the_recorded_models(golden: Path, tmp_path: Path) -> None:
    assert inspect(parts(golden, tmp_path)) == []


TEXT_CONFIG = {"model_type": "llama", "_name_or_path": "lmsys/vicuna-7b-v1.5"}
LANGUAGE_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "LLaVA's own format": (
        {"model_type": "llava_llama", "mm_vision_tower": "openai/clip"},
        "llava_llama is a whole vision-language model.*or save its language model",
    ),
    "LLaVA of transformers": (
        {"model_type": "llava", "text_config": TEXT_CONFIG, "vision_config": {}},
        r"llava is a whole .*made from \(perhaps lmsys/vicuna-7b-v1.5\)",
    ),
    "composite with a causal class": (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
        "gemma3 is a whole vision-language model",
    ),
    "mm_vision_tower in a Llama": ({"mm_vision_tower": "x"}, "whole vision-language model"),
    "custom code": (
        {"model_type": "my_own", "auto_map": {"AutoConfig": "x.Y"}},
        "'my_own' is Python code of the folder's own",
    ),
    "unknown": ({"model_type": "never_heard"}, "'never_heard' is none that transformers"),
    "no type": ({"model_type": None}, "states no model_type"),
    "no language model": ({"model_type": "clip_vision_model"}, "predicts the next token"),
    "quantised": ({"quantization_config": {"bits": 4}}, "the weights are quantised"),
    "unknown activation": ({"hidden_act": "silue"}, "makes no model .*silue"),
    "sizes that do not divide": ({"num_attention_heads": 7}, "heads"),
    "own attention": ({"model_type": "bloom", "n_head": 4, "hidden_size": 64}, "in its own code"),
    "soft cap": ({"model_type": "gemma2"}, "type gemma2 Gemma2Attention .* softcap"),
    "an embedding of another width": (
        {"model_type": "opt", "word_embed_proj_dim": 32, "hidden_size": 64, "ffn_dim": 96},
        "the embedding has 32 channels and the layers 64",
    ),
    "rotary tables of nothing": (
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}},
        "computes numbers that are not finite",
    ),
    "a dtype with its module": ({"torch_dtype": "torch.float16"}, "cannot be used.*float16"),
    "quantised by nothing": ({"quantization_config": {}}, "the weights are quantised"),
    "learned positions": (
        {"model_type": "gpt2", "max_position_embeddings": 100, "n_embd": 64, "n_head": 4},
        r"learned 100 positions \(transformer.wpe\) and data.max_length is 128",
    ),
    "stretched rotary positions": (
        {
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        },
        "lower data.max_length to 64",
    ),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model_that_does_not_train_is_named(
    golden: Path, tmp_path: Path, name: str
) -> None:
    values, message = LANGUAGE_MODELS[name]
    (problem,) = inspect(parts(golden, tmp_path, llm=values))
    assert f"models.language_model: {tmp_path}/llm" in problem or "language model: " in problem
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(problem)
    assert "pip install" not in problem


@pytest.mark.parametrize(("max_length", "problems"), [(510, 0), (512, 1)])
def test_rounded_positions_stay_in_front_of_where_rotary_tables_change(
    golden: Path, tmp_path: Path, max_length: int, problems: int
) -> None:
    """bf16 rounds 511 to 512, the first place of the other table."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    llm = {"max_position_embeddings": 512, "rope_parameters": rope}
    found = inspect(parts(golden, tmp_path, llm=llm, max_length=max_length, positions="bf16"))
    assert len(found) == problems
    assert all("rounds 511" in problem and "to 512" in problem for problem in found)


def test_custom_code_of_a_type_that_transformers_has_is_not_needed(
    golden: Path, tmp_path: Path
) -> None:
    assert inspect(parts(golden, tmp_path, llm={"auto_map": {"AutoConfig": "x.Y"}})) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "vit", "vision_config": None}, "vit.*only clip_vision_model"),
        ({"num_hidden_layers": 5}, "hidden_states"),
        ({"quantization_config": {"bits": 8}}, "the weights are quantised"),
        (
            {"model_type": "clip", "vision_config": {"quantization_config": {"bits": 8}}},
            "the weights are quantised",
        ),
    ],
)
def test_a_tower_that_does_not_fit_is_named(
    golden: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    (problem,) = inspect(parts(golden, tmp_path, tower=values))
    assert f"models.vision_tower: {tmp_path}/tower/config.json" in problem
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


def test_every_problem_is_told_at_once(golden: Path, tmp_path: Path) -> None:
    found = inspect(parts(golden, tmp_path, llm={"model_type": "x"}, tower={"model_type": "y"}))
    assert len(found) == 2


def test_connector_weights_of_other_models_are_named(golden: Path, tmp_path: Path) -> None:
    weights = tmp_path / "connector.safetensors"
    save_file({"0.weight": torch.zeros(3, 5), "4.bias": torch.zeros(1)}, weights)
    found = inspect(parts(golden, tmp_path, connector_weights=weights))
    assert len(found) == 5
    assert f"models.connector: {weights}: 0.weight is 3x5 in the file" in found[1]
    assert "4.bias is 1 in the file" in found[-1] and "need missing" in found[-1]
