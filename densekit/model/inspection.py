"""What is wrong with the models of a recipe, found without reading their weights: their
configurations, the model that they make on the meta device, the leak probe, and the headers of the
weight files beside that model.

It runs before a run directory exists, as a process of the trainer's environment (`densekit
inspect`), and in the trainer where nothing was found out before.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from densekit.errors import DataError, in_a_line
from densekit.files.json_files import read_object
from densekit.files.weight_files import read_weight_files
from densekit.model.config import DenseConnectorConfig, model_config, read_config
from densekit.model.probe import probe
from densekit.model.projector import Projector
from densekit.model.towers import FAMILIES, make_tower, vision_config_of
from densekit.model.towers.convnext import conv_config
from densekit.model.trainable_part import as_trained
from densekit.model.weights import check_language_model
from densekit.spec.mining import is_colour, normalisation_of
from densekit.spec.model_parts import ModelParts

FIELDS = {
    "language_model": "models.language_model",
    "vision_tower": "models.vision_tower",
    "high_resolution_tower": "models.high_resolution_tower",
    "connector_weights": "models.connector",
}
"""Where a recipe names each part."""
NORMALISATION = 1e-6
"""Means and deviations of two towers that differ by less are the same."""
STRETCHED = ("dynamic", "longrope")
"""Rotary tables that depend on the longest sequence of a micro-batch, once it is longer than the
pretraining's.
"""
WHOLE_MODELS = ("llava", "mgm", "mini_gemini", "bunny", "tiny_llava")
"""How the model types of LLaVA-style code begin that transformers does not know."""


def inspect(parts: ModelParts) -> list[str]:
    """Everything that is wrong, each with what to do; empty when nothing is."""
    problems = [*_language_model(parts), *_vision_tower(parts), *_high_resolution_tower(parts)]
    if not problems:
        try:
            config = model_config(
                parts.language_model,
                parts.vision_tower,
                parts.connector,
                anyres=parts.anyres,
                high_resolution_tower=parts.high_resolution_tower,
            )
        except DataError as error:
            return [str(error)]
        problems += _connector(parts, config)
    return problems


def _language_model(parts: ModelParts) -> Iterator[str]:
    folder = parts.language_model
    place = f"{FIELDS['language_model']}: {folder}/config.json"
    try:
        raw = read_object(folder / "config.json")
        model_type = _known_type(raw, place)
        if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or _is_composite(raw):
            raise DataError(_not_a_language_model(place, raw))
        config = read_config(folder, "language model")
        if getattr(config, "sub_configs", None):
            raise DataError(_not_a_language_model(place, raw))
    except DataError as error:
        yield str(error)
        return
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a class of transformers raises for its configuration
        yield f"{place} makes no model ({in_a_line(error)}): put the published file back"
        return
    width = model.get_input_embeddings().weight.shape[1]
    if width != config.hidden_size:
        yield (
            f"{place}: the embedding has {width} channels and the layers {config.hidden_size}, so "
            "that an image's features do not fit beside the tokens: choose a language model of "
            "docs/architectures.md"
        )
        return
    yield from (f"{place}: {problem}" for problem in _lengths(config, model, parts))
    if parts.positions != "exact" and not getattr(config, "rope_parameters", None):
        yield (
            f"positions: {parts.positions} rounds what rotary tables are computed from, and a "
            f"language model of type {model_type} has none: omit `positions`"
        )
    if (problem := probe(config)) is not None:
        yield (
            f"{place}: a language model of type {model_type} {problem}; choose a language model "
            "of docs/architectures.md"
        )
    elif _can_be_read(folder):
        try:
            check_language_model(model, folder)
        except DataError as error:
            yield str(error)
        except Exception as error:  # whatever transformers raises for a configuration
            yield f"{place}: its weights cannot be loaded ({in_a_line(error)})"


def _vision_tower(parts: ModelParts) -> Iterator[str]:
    folder = parts.vision_tower
    place = f"{FIELDS['vision_tower']}: {folder}/config.json"
    try:
        _known_type(read_object(folder / "config.json"), place)
        config = read_config(folder, "vision tower")
        last_layer = parts.connector.last_layer(int(vision_config_of(config).num_hidden_layers))
        with torch.device("meta"):
            tower = make_tower(config, last_layer)
        if _can_be_read(folder):
            tower.check_files(folder, vision_config_of(config))
    except DataError as error:
        yield str(error)
    except Exception as error:  # whatever a class of transformers raises for its configuration
        yield (
            f"{place} makes no vision tower ({in_a_line(error)}): it must be a CLIP or SigLIP "
            f"vision model ({', '.join(FAMILIES)})"
        )


def _high_resolution_tower(parts: ModelParts) -> Iterator[str]:
    """A second tower that is no ConvNeXt, or whose pixels are normalised in another way."""
    folder, mining = parts.high_resolution_tower, parts.connector.mining
    if folder is None or mining is None:
        return
    place = FIELDS["high_resolution_tower"]
    try:
        conv_config(folder, mining)
        theirs = normalisation_of(folder)
        path = parts.vision_tower / "preprocessor_config.json"
        ours = read_object(path, "image_mean", "image_std")
    except DataError as error:
        yield f"{place}: {error}"
        return
    for name, other in zip(("image_mean", "image_std"), theirs, strict=True):
        mine = ours[name]
        if not is_colour(mine):
            yield (
                f"{FIELDS['vision_tower']}: {path}: {name} is not three numbers: put the published "
                "file back"
            )
        elif not np.allclose(np.array(mine, float), np.array(other, float), atol=NORMALISATION):
            yield (
                f"{place}: {folder} normalises pixels by {name} {other}, and the vision tower by "
                f"{mine}: both see the same pixels, so use towers of one normalisation"
            )


def _connector(parts: ModelParts, config: DenseConnectorConfig) -> Iterator[str]:
    """Projector weights of other sizes than this tower, connector and language model need."""
    if parts.connector_weights is None:
        return
    place = f"{FIELDS['connector_weights']}: {parts.connector_weights}"
    try:
        with safe_open(parts.connector_weights, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        yield f"{place} cannot be read ({error}): put a safetensors file there"
        return
    width = vision_config_of(config.vision_config).hidden_size
    with torch.device("meta"):
        projector = Projector(
            parts.connector,
            width,
            config.text_config.hidden_size,
            window_channels=config.window_channels,
        )
    expected = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield (
                f"{place}: {name} is {_shape(found.get(name))} in the file, and this tower, "
                f"connector and language model need {_shape(expected.get(name))}: name the weights "
                "of the same models"
            )


def _can_be_read(folder: Path) -> bool:
    """Whether nothing is wrong with the weight files as files, which preflight names."""
    return not read_weight_files(folder)[1]


def _known_type(raw: dict[str, Any], place: str) -> str:
    """The model type that a config.json states. Raises DataError for one that transformers cannot
    build by itself, and for quantised weights.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise DataError(f"{place} states no model_type: put the published file back")
    if model_type.startswith(WHOLE_MODELS) or "mm_vision_tower" in raw:
        raise DataError(_not_a_language_model(place, raw))
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise DataError(
                f"{place}: model type {model_type!r} is Python code of the folder's own "
                "(auto_map), and densekit runs no code from a model folder: choose a language "
                "model of docs/architectures.md"
            )
        raise DataError(
            f"{place}: model type {model_type!r} is none that transformers has a class for: "
            "choose a language model of docs/architectures.md"
        )
    vision = raw.get("vision_config")
    if any(
        isinstance(each, dict) and each.get("quantization_config") is not None
        for each in (raw, vision)
    ):
        raise DataError(
            f"{place}: the weights are quantised (quantization_config), which cannot be trained "
            "on: name the folder of the model that they were made from"
        )
    return model_type


def _is_composite(raw: dict[str, Any]) -> bool:
    return any(isinstance(raw.get(name), dict) for name in ("text_config", "vision_config"))


def _not_a_language_model(place: str, raw: dict[str, Any]) -> str:
    model_type = raw.get("model_type")
    if str(model_type).startswith(WHOLE_MODELS) or "mm_vision_tower" in raw or _is_composite(raw):
        text = raw.get("text_config")
        base = (text if isinstance(text, dict) else raw).get("_name_or_path")
        hint = f" (perhaps {base})" if base else ""
        return (
            f"{place}: {model_type} is a whole vision-language model, not a language model: name "
            f"the language model that it was made from{hint}, or save its language model into a "
            "folder of its own, without the vision tower, and its projector as models.connector"
        )
    return (
        f"{place}: {model_type} is no language model that predicts the next token: choose one of "
        "docs/architectures.md"
    )


def _lengths(config: PreTrainedConfig, model: nn.Module, parts: ModelParts) -> Iterator[str]:
    """What does not reach as far as the longest sequence."""
    max_length = parts.max_length
    token_table = model.get_input_embeddings()  # type: ignore[operator]
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and module is not token_table:
            # Some tables have a few rows more than there are positions.
            rows = min(module.num_embeddings, config.max_position_embeddings)
            if (last == "wpe" or "position" in last) and rows < max_length:
                yield (
                    f"the model learned {rows} positions ({name}) and data.max_length is "
                    f"{max_length}: lower data.max_length to {rows}"
                )
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in rope.values() if all(isinstance(v, dict) for v in rope.values()) else [rope]:
        if kind.get("rope_type") in STRETCHED:
            limit = (
                kind.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or config.max_position_embeddings
            )
            # Rounding takes the last places of a sequence past its end.
            last = as_trained(torch.tensor(max_length - 1), parts.positions)
            if max_length <= limit <= last:
                yield (
                    f"rotary positions of type {kind['rope_type']} change for the whole "
                    f"micro-batch behind {limit}, and `positions: {parts.positions}` rounds "
                    f"{max_length - 1}, the last one of data.max_length {max_length}, to "
                    f"{int(last)}: lower data.max_length"
                )
            if limit < max_length:
                yield (
                    f"rotary positions of type {kind['rope_type']} change for the whole "
                    f"micro-batch when one sequence is longer than {limit}, and data.max_length is "
                    f"{max_length}: lower data.max_length to {limit}"
                )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
