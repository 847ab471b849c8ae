"""The tensors of an official checkpoint, file by file: which there are, and which part of the model
each belongs to.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from densekit.errors import DataError
from densekit.exchange.weight_file import WeightFile, open_weights
from densekit.files.pickle_files import has_pickled_weights, pickled_weights
from densekit.files.weight_files import BUFFERS, few, kind_of, read_weight_files

Where = Literal["language_model", "connector", "newline", "vision_tower"]
PARTS: tuple[tuple[Where, re.Pattern[str]], ...] = (
    ("connector", re.compile(r"^(?:.*\.)?mm_projector\.(?P<name>.+)$")),
    ("newline", re.compile(r"^(?:.*\.)?(?P<name>image_newline)$")),
    ("vision_tower", re.compile(r"^(?:.*\.)?vision_tower\.vision_tower\.(?P<name>.+)$")),
    (
        "language_model",
        re.compile(r"^(?P<name>(?:model\.(?:embed_tokens|layers|norm)|lm_head)\..+)$"),
    ),
)
EMBEDDING = "model.embed_tokens.weight"
"""A tensor that every language model of Llama's kind has: a row for each token."""
HEAD = "lm_head.weight"
"""The output embedding."""
OTHERS = (
    (r"(vision_tower_aux|vlm_uni_)", "a Mini-Gemini (MGM) model, with a second tower"),
    (r"vision_resampler|mm_projector\.model\.", "a model with a resampler"),
    (r"lora_[AB]\.", "a LoRA adapter, which belongs into adapter_model"),
)
"""Tensors of models that are not imported, and what they say of the model."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of a file: where it belongs, and its type and shape."""

    part: Where
    name: str
    """Within its part."""
    dtype: str
    shape: tuple[int, ...]


def model_files(folder: Path) -> list[WeightFile]:
    """The files of a whole model's weights, in order; [] where there are none. Raises DataError
    with everything that is wrong with them.
    """
    if any(folder.glob("model*.safetensors*")) or not has_pickled_weights(folder):
        if not any(folder.glob("model*.safetensors*")):
            return []
        tensors, problems = read_weight_files(folder)
        if problems:
            raise DataError("; ".join(problems))
        return [open_weights(path) for path in sorted({each.file for each in tensors.values()})]
    found = pickled_weights(folder)
    files = [open_weights(folder / name) for name in found.files]
    for file in files:
        wanted = () if found.tensors is None else found.tensors[file.path.name]
        if lacking := [name for name in wanted if name not in file.shapes]:
            raise DataError(
                f"{file.path} lacks {few(lacking)}, which the index says are in it: download the "
                "folder again"
            )
    return files


def sort_tensors(file: WeightFile) -> tuple[dict[str, Stored], Counter[str]]:
    """Where each tensor of a file belongs, by its name there; and those that are computed anew,
    counted by kind.

    Raises DataError for tensors of another kind of model.
    """
    found: dict[str, Stored] = {}
    dropped: Counter[str] = Counter()
    strange: list[str] = []
    for name, (dtype, shape) in file.shapes.items():
        if (kind := kind_of(name, BUFFERS)) is not None:
            dropped[kind] += 1
            continue
        place = _place(name)
        if place is None:
            strange.append(name)
            continue
        found[name] = Stored(part=place[0], name=place[1], dtype=dtype, shape=shape)
    for pattern, what in OTHERS:
        if named := [name for name in file.shapes if re.search(pattern, name)]:
            raise DataError(
                f"{file.path} holds {few(named)}: it is {what}, which is not supported yet"
            )
    if strange:
        raise DataError(
            f"{file.path} holds {few(strange)}, which belong to no part of an official checkpoint: "
            "it is of another kind of model, which cannot be imported"
        )
    return found, dropped


def _place(name: str) -> tuple[Where, str] | None:
    name = name.removeprefix("base_model.model.") if name.startswith("base_model.") else name
    for part, pattern in PARTS:
        if match := pattern.match(name):
            return part, match["name"]
    return None
