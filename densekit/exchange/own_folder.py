"""A folder in densekit's own format, as `densekit export --format densekit` wrote it."""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from densekit.errors import DataError
from densekit.exchange.weight_file import open_weights
from densekit.files.json_files import optional_object
from densekit.files.weight_files import read_weight_files
from densekit.model.config import DenseConnectorConfig, check_parts
from densekit.model.pretrained import load_pretrained
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.runs.layout import MATH_FILE
from densekit.spec.conversation import ConversationSettings
from densekit.spec.mining import Mining
from densekit.spec.part import read_part

CONVERSATION = "conversation"
"""Key of config.json that holds the ConversationSettings."""
NEWLINE = "image_newline.weight"
"""The newline vector of AnyRes."""
MAX_REASON = 300
"""Characters of what transformers says of a configuration."""
REMEDY = "export the model again with this version of densekit"


def is_own(folder: Path) -> bool:
    """Whether a folder is densekit's own format, and no run."""
    return (
        not (folder / MATH_FILE).exists()
        and _stated(folder).get("model_type") == DenseConnectorConfig.model_type
    )


def read_conversation(folder: Path) -> ConversationSettings:
    """How its prompts are made. Raises DataError where config.json does not say it."""
    path = folder / "config.json"
    if CONVERSATION not in _stated(folder):
        raise DataError(f"{path} does not say how prompts are made (`{CONVERSATION}`): {REMEDY}")
    value = _stated(folder)[CONVERSATION]
    return read_part(ConversationSettings, value, source=path, remedy=REMEDY)


def read_mining(folder: Path) -> Mining | None:
    """What its connector mines; None where it does not. Raises DataError as `load_own`."""
    return _read_config(folder).connector_spec.mining


def _read_config(folder: Path) -> DenseConnectorConfig:
    try:
        config = DenseConnectorConfig.from_pretrained(folder, local_files_only=True)
        check_parts(config)
    except Exception as error:  # whatever transformers raises for a configuration
        reason = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
        if isinstance(error, AttributeError | TypeError):
            reason = "a section has another form than densekit writes"
        if isinstance(error, ValidationError):
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"{folder}/config.json cannot be used ({reason}): {REMEDY}") from None
    return config


def load_own(folder: Path, *, dtype: torch.dtype) -> DenseConnectorForConditionalGeneration:
    """The model in eval mode: the language model as `dtype`, the rest in fp32. Raises DataError as
    `load_pretrained`, and for a config.json that makes no model.
    """
    config = _read_config(folder)
    model: DenseConnectorForConditionalGeneration = load_pretrained(
        DenseConnectorForConditionalGeneration,
        folder,
        what="exported model",
        config=config,
        dtype=dtype,
        dropped=(),
    )
    if dtype != torch.float32:
        _in_full(model, folder)
    model.eval()
    return model


def _in_full(model: DenseConnectorForConditionalGeneration, folder: Path) -> None:
    """Read towers, projector and newline vector again, without rounding."""
    for part in ("vision_tower", "high_resolution_tower", "projector", "image_newline"):
        if getattr(model, part) is None:
            continue
        module = getattr(model, part).float()
        tensors, _ = read_weight_files(folder)
        named: dict[Path, list[str]] = {}
        for name, found in tensors.items():
            if name.startswith(f"{part}."):
                named.setdefault(found.file, []).append(name)
        state = {
            name.removeprefix(f"{part}."): value.float()
            for path, names in named.items()
            for name, value in open_weights(path).read(names).items()
        }
        module.load_state_dict(state)


def _stated(folder: Path) -> dict[str, Any]:
    return optional_object(folder / "config.json")
