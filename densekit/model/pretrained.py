"""Pretrained weights out of a folder: every tensor of the model is read from it, and every tensor
in it is used or of a kind that is dropped on purpose. Nothing is drawn.

BUFFERS and DROPPED_OF_TOWERS list what is dropped; what was is counted in one line.
"""

import copy
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from densekit.errors import DataError
from densekit.files.weight_files import Kinds, few, kind_of, read_weight_files

DROPPED_OF_TOWERS: Kinds = (
    ("tensors of the text tower", r"^text_model\."),
    ("projections and scales", r"^((text|visual)_projection\.|logit_(scale|bias)$)"),
    ("tensors of the head and the last norm", r"(^|^vision_model\.)(head|post_layernorm)\."),
)


def load_pretrained(
    model_class: Any,
    folder: Path,
    *,
    what: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    dropped: Kinds,
    context: AbstractContextManager[Any] | None = None,
) -> Any:
    """A model of `model_class` with the weights of a folder, `what` it is in messages.

    `context`: what it is loaded in; ZeRO-3 partitions it there. Raises DataError naming tensors and
    file for any that is missing, of another shape or not expected, and for a folder that holds
    anything but its own safetensors.
    """
    shapes = tensor_shapes(folder, what)
    with quiet_transformers(), context or nullcontext():
        model, report = model_class.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **_reported(config),
        )
    _refuse(what, shapes, report, dropped)
    _check_tied(model, config, what, folder)
    _count(model, what, folder, shapes, dropped)
    return model


def check_pretrained(
    model_class: Any,
    folder: Path,
    *,
    what: str,
    config: PreTrainedConfig,
    dropped: Kinds,
) -> None:
    """Raise DataError as `load_pretrained` does for tensors that are not the model's, by the
    headers of the files alone: transformers is given tensors of their shapes on the meta device.

    Under ZeRO-3 transformers itself reports nothing that is unexpected, and tells rank 0 alone of
    another shape.
    """
    shapes = tensor_shapes(folder, what)
    with quiet_transformers():
        _, report = model_class.from_pretrained(
            None,
            state_dict={
                name: torch.empty(shape, device="meta") for name, (_, shape) in shapes.items()
            },
            device_map={"": "meta"},
            **_reported(copy.deepcopy(config)),
        )
    _refuse(what, shapes, report, dropped)


def _reported(config: PreTrainedConfig) -> dict[str, Any]:
    """What makes transformers report every tensor that does not fit."""
    return {
        "config": config,
        "ignore_mismatched_sizes": True,  # refused here, by name
        "output_loading_info": True,
    }


def tensor_shapes(folder: Path, what: str) -> dict[str, tuple[Path, torch.Size]]:
    """File and shape of every tensor in a folder, from the headers. Raises DataError with
    everything that is wrong with its files.
    """
    tensors, problems = read_weight_files(folder)
    if problems:
        raise DataError(f"{what}: {'; '.join(problems)}")
    return {name: (found.file, torch.Size(found.entry.shape)) for name, found in tensors.items()}


def _refuse(
    what: str,
    shapes: Mapping[str, tuple[Path, torch.Size]],
    report: Mapping[str, Any],
    dropped: Kinds,
) -> None:
    faults = {
        "missing": report["missing_keys"],
        "unexpected": report["unexpected_keys"],
        "of another shape": [name for name, *_ in report["mismatched_keys"]],
    }
    said = []
    for fault, names in faults.items():
        counted = sorted(name for name in names if not kind_of(name, dropped))
        if counted:
            said.append(f"{len(counted)} {fault} ({few(counted)})")
    if said:
        files = sorted({str(path) for path, _ in shapes.values()})
        where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
        raise DataError(
            f"{what}: the tensors in {where} are not those of its config.json: {', '.join(said)}; "
            "nothing is drawn in their place: download the folder again, or put the config.json "
            "of these weights into it"
        )


def _check_tied(model: nn.Module, config: PreTrainedConfig, what: str, folder: Path) -> None:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    if head.weight is not model.get_input_embeddings().weight:  # type: ignore[operator]
        raise DataError(
            f"{what}: {folder}/config.json ties lm_head to the embedding (tie_word_embeddings), "
            "and the weights hold another lm_head: set tie_word_embeddings to what the weights "
            "were trained with"
        )


def _count(
    model: nn.Module,
    what: str,
    folder: Path,
    shapes: Mapping[str, tuple[Path, torch.Size]],
    dropped: Kinds,
) -> None:
    kept = model.state_dict().keys()
    kinds = Counter(
        kind for name in shapes if name not in kept and (kind := kind_of(name, dropped))
    )
    if kinds and os.environ.get("RANK", "0") == "0":
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        _say_once(f"{what} {folder}: not used: {counts}")


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its warnings and its table of tensors: what matters is said here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
