"""The table of shapes against the modules that densekit builds, and against config.json."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memory_trace import language_config, tower_config
from transformers import AutoConfig, MistralConfig

from densekit.errors import DataError, UsageError
from densekit.model.config import DenseConnectorConfig
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import (
    LANGUAGE_MODELS,
    TOWERS,
    connector_shape,
    language_shape,
    shape_of,
    tower_shape,
)
from densekit.spec.math import Lora
from densekit.spec.roots import Roots
from densekit.train.lora import add_lora

NOWHERE = Roots(data=Path("nowhere"), models=Path("nowhere"), cache=Path("nowhere"))
VICUNA, CLIP, SIGLIP = (
    "lmsys/vicuna-7b-v1.5",
    "openai/clip-vit-large-patch14-336",
    "google/siglip-so400m-patch14-384",
)


def count(module: torch.nn.Module, *, trained: bool = False) -> int:
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad or not trained
    )


@pytest.mark.parametrize(
    "name",
    [
        "tiny_stage1",
        "vicuna7b_clip_stage1",
        "phi2_stage1",
        "llama3_8b_stage1",
        "vicuna7b_clip_sci_stage1",
        "vicuna7b_clip_efficient_stage1",
        "vicuna7b_clip_dci_linear_stage1",
    ],
)
def test_parameter_counts_are_those_of_the_modules(name: str) -> None:
    recipe = load_recipe(name)
    shape = shape_of(recipe, NOWHERE)
    config = DenseConnectorConfig(
        text_config=language_config(shape.language),
        vision_config=tower_config(shape.tower),
        connector=recipe.connector.model_dump(mode="json"),
    )
    with torch.device("meta"):
        model = DenseConnectorForConditionalGeneration(config)
        assert count(model.language_model) == shape.language.parameters
        assert count(model.vision_tower) == shape.tower_parameters
        assert count(model.projector) == shape.projector_parameters
        assert config.image_layout.max_tokens == shape.image_tokens
        assert model.projector.get_submodule("0").in_features == shape.connector.width
        linear = [
            each for each in model.language_model.modules() if isinstance(each, torch.nn.Linear)
        ]
        assert sum(each.weight.numel() for each in linear) == (
            shape.language.layers * shape.language.layer_linear_parameters
            + shape.language.vocab * shape.language.hidden
        )
        add_lora(model, Lora(r=8, alpha=16, dropout=0.0))
    assert count(model.language_model, trained=True) == shape.language.lora_parameters(8)


def test_tied_head_counts_once() -> None:
    shape = replace(LANGUAGE_MODELS["tiny/language_model"], tied=True)
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(language_config(shape))
    assert count(model) == shape.parameters


def test_connector_shape_follows_the_tower() -> None:
    recipe = load_recipe("vicuna7b_clip_sti_8_16_20_24_stage1")
    shape = shape_of(recipe, NOWHERE)
    assert shape.image_tokens == recipe.connector.tokens(576) > 576
    assert shape.connector.width == recipe.connector.width(1024)
    assert shape.connector.last_layer == 23
    beyond = recipe.connector.model_copy(update={"layers": (25,)})
    with pytest.raises(
        UsageError, match=r"hidden_states\[25\] does not exist in a vision tower of 24 layers"
    ):
        connector_shape(beyond, shape.tower)


@pytest.mark.parametrize(
    ("recipe_name", "language", "tower"),
    [("vicuna7b_clip_stage1", VICUNA, CLIP), ("phi2_stage1", "microsoft/phi-2", SIGLIP)],
)
def test_config_json_and_table_agree(
    tmp_path: Path, recipe_name: str, language: str, tower: str
) -> None:
    for name, config in (
        (language, language_config(LANGUAGE_MODELS[language]).to_dict()),
        (tower, {"model_type": "any", "vision_config": tower_config(TOWERS[tower]).to_dict()}),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if "vision_config" in config:
            config["model_type"] = "clip" if TOWERS[name].has_cls else "siglip"
        (folder / "config.json").write_text(json.dumps(config))
    recipe = load_recipe(recipe_name)
    assert shape_of(recipe, Roots(models=tmp_path)) == shape_of(recipe, NOWHERE)


def test_config_json_overrides_the_table(tmp_path: Path) -> None:
    folder = tmp_path / VICUNA
    folder.mkdir(parents=True)
    config = language_config(replace(LANGUAGE_MODELS[VICUNA], layers=5)).to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    assert shape_of(load_recipe("vicuna7b_stage1"), Roots(models=tmp_path)).language.layers == 5


def test_unknown_model_is_a_usage_error() -> None:
    recipe = load_recipe("vicuna7b_stage1", overrides=["models.language_model=models:someone/else"])
    with pytest.raises(
        UsageError, match=r"someone/else holds no config\.json.*lmsys/vicuna-7b-v1\.5"
    ):
        shape_of(recipe, NOWHERE)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama", "hidden_size": 4096}'])
def test_damaged_config_is_a_data_error(tmp_path: Path, text: str) -> None:
    folder = tmp_path / VICUNA
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        shape_of(load_recipe("vicuna7b_stage1"), Roots(models=tmp_path))


@pytest.mark.parametrize(("family", "patch_size"), [("clip", 32), ("siglip", 16)])
def test_what_a_vision_configuration_leaves_out_is_what_transformers_takes(
    tmp_path: Path, family: str, patch_size: int
) -> None:
    given = {"model_type": f"{family}_vision_model", "image_size": 8 * patch_size}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": family, "vision_config": given})
    )
    shape = tower_shape(str(tmp_path), None)
    vision = AutoConfig.from_pretrained(tmp_path).vision_config
    assert (shape.hidden, shape.intermediate) == (vision.hidden_size, vision.intermediate_size)
    assert (shape.layers, shape.heads) == (vision.num_hidden_layers, vision.num_attention_heads)
    assert (shape.image_size, shape.patch_size) == (vision.image_size, vision.patch_size)
    assert (shape.image_size, shape.patches) == (8 * patch_size, 64)


def test_a_mistral_that_does_not_say_has_the_kv_heads_of_transformers(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    values = {"model_type": "mistral", "num_attention_heads": 16, "vocab_size": 300, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(values))
    stock = MistralConfig.from_pretrained(tmp_path)
    assert language_shape(str(tmp_path), None).kv_heads == stock.num_key_value_heads == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch_size": 337}, "patch_size 337 is larger than image_size 336"),
        ({"image_size": 5000}, "image_size must be a positive integer, not 5000 .at most 4096"),
    ],
)
def test_tower_of_impossible_patches_is_a_data_error(
    tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    folder = tmp_path / CLIP
    folder.mkdir(parents=True)
    config = tower_config(TOWERS[CLIP]).to_dict() | changed
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        tower_shape(f"models:{CLIP}", Roots(models=tmp_path))


def test_other_architectures_are_a_usage_error(tmp_path: Path) -> None:
    folder = tmp_path / VICUNA
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UsageError, match="gpt2"):
        shape_of(load_recipe("vicuna7b_stage1"), Roots(models=tmp_path))
