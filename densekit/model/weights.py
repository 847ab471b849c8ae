"""Weights in and out of safetensors files, and a model from the folders of its parts."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from densekit.errors import DataError, in_a_line
from densekit.files.permissions import follow_umask
from densekit.files.weight_files import BUFFERS
from densekit.files.whole import written_whole
from densekit.model.config import model_config
from densekit.model.pretrained import check_pretrained, load_pretrained
from densekit.model.towers import load_tower
from densekit.model.towers.convnext import load_high_resolution_tower
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector


def load_parts(
    language_model: Path,
    vision_tower: Path,
    connector: Connector,
    *,
    anyres: AnyRes | None = None,
    high_resolution_tower: Path | None = None,
    dtype: torch.dtype = torch.float32,
    language_model_context: AbstractContextManager[Any] | None = None,
) -> DenseConnectorForConditionalGeneration:
    """A model from a language-model folder and a tower folder; what is drawn, the projector and a
    newline vector, is left on the meta device.

    The language model is loaded as `dtype` inside `language_model_context` (ZeRO-3 partitions it
    there), the towers in fp32. Raises DataError when a folder does not hold exactly their weights
    (model.pretrained).
    """
    config = model_config(
        language_model,
        vision_tower,
        connector,
        anyres=anyres,
        high_resolution_tower=high_resolution_tower,
    )
    try:
        with torch.device("meta"):
            model = DenseConnectorForConditionalGeneration(config)
    except Exception as error:  # whatever a class of transformers raises for its configuration
        raise DataError(
            f"config.json of {language_model} or {vision_tower} makes no model "
            f"({in_a_line(error)}): put the published file back"
        ) from None
    try:
        if language_model_context is not None:
            check_language_model(model.language_model, language_model)
        loaded = load_pretrained(
            AutoModelForCausalLM,
            language_model,
            what="language model",
            config=config.text_config,
            dtype=dtype,
            dropped=BUFFERS,
            context=language_model_context,
        )
        model.replace_language_model(loaded)
        model.vision_tower = load_tower(
            vision_tower,
            config.vision_config,
            connector.last_layer(config.tower_layers),
            torch.float32,
        )
        if high_resolution_tower is not None:
            model.high_resolution_tower = load_high_resolution_tower(
                high_resolution_tower, config.high_resolution_config, torch.float32
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"weights of {language_model} or {vision_tower} cannot be loaded: {error}"
        ) from None
    return model


def check_language_model(model: PreTrainedModel, folder: Path) -> None:
    """Raise DataError where the headers in a folder are not those of the language model that its
    configuration makes.
    """
    check_pretrained(
        type(model), folder, what="language model", config=model.config, dropped=BUFFERS
    )


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
    whole = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with written_whole(path) as temporary:
        save_file(whole, temporary)
        follow_umask(temporary)
