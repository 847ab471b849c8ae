"""Models in and out: from pretrained parts, with initial connector weights that are a file."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig

from densekit.errors import DataError
from densekit.model.config import DenseConnectorConfig
from densekit.model.towers.tower import VisionTower
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.connector import Connector


def read_config(directory: Path, what: str) -> PreTrainedConfig:
    """The transformers configuration in a model folder; DataError when there is none that loads."""
    if not (directory / "config.json").is_file():
        raise DataError(
            f"{what}: {directory} holds no config.json; put the model's folder there (transformers format)"
        )
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{what}: {directory}/config.json cannot be used: {error}") from None


def model_config(
    language_model: Path, vision_tower: Path, connector: Connector
) -> DenseConnectorConfig:
    """The configuration of a model made of these parts; DataError when they do not fit together."""
    try:
        config = DenseConnectorConfig(
            text_config=read_config(language_model, "language model"),
            vision_config=read_config(vision_tower, "vision tower"),
            connector=connector.model_dump(mode="json"),
        )
        last_layer = connector.last_layer(config.tower_layers)
        if last_layer > config.tower_layers:
            raise ValueError(
                f"hidden_states[{last_layer}] is asked of a tower of {config.tower_layers} layers"
            )
    except ValueError as error:
        raise DataError(f"connector on {vision_tower}: {error}") from None
    return config


def load_parts(
    language_model: Path,
    vision_tower: Path,
    connector: Connector,
    *,
    dtype: torch.dtype = torch.float32,
    language_model_context: AbstractContextManager[Any] | None = None,
) -> DenseConnectorForConditionalGeneration:
    """A model from a language-model folder and a tower folder; the projector is left on the meta
    device.

    The language model is loaded as `dtype` inside `language_model_context` (ZeRO-3 partitions it
    there), the tower in fp32. Raises DataError when a folder holds no loadable weights.
    """
    config = model_config(language_model, vision_tower, connector)
    with torch.device("meta"):
        model = DenseConnectorForConditionalGeneration(config)
    try:
        implementation = model.language_model.config._attn_implementation
        with language_model_context or nullcontext():
            model.language_model = AutoModelForCausalLM.from_pretrained(
                language_model, dtype=dtype, local_files_only=True
            )
        model.language_model.set_attn_implementation(implementation)
        model.vision_tower = VisionTower.from_pretrained(
            str(vision_tower),
            config.vision_config,
            connector.last_layer(config.tower_layers),
            torch.float32,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"weights of {language_model} or {vision_tower} cannot be loaded: {error}"
        ) from None
    model.config.text_config = model.language_model.config
    return model


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named use of randomness, independent of every other use."""
    return torch.Generator().manual_seed(named_seed(seed, name))


def named_seed(seed: int, name: str) -> int:
    """The seed of one named use of randomness (63 bits of a hash)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def initial_connector(
    model: DenseConnectorForConditionalGeneration, seed: int
) -> dict[str, Tensor]:
    """Projector weights drawn as nn.Linear draws them (uniform, 1/sqrt(fan_in)), from a named
    generator.

    The official code draws them before it seeds anything (ledger U5).
    """
    generator = named_generator(seed, "connector")
    drawn = {}
    for name, module in model.projector.named_children():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for kind, shape in (("weight", module.weight.shape), ("bias", module.bias.shape)):
                drawn[f"{name}.{kind}"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return drawn


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; DataError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"weights file {path} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"weights file {path} cannot be read: {error}") from None


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; the file appears whole, by one rename."""
    temporary = path.with_name(f".{path.name}.new")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary
    )
    temporary.replace(path)
