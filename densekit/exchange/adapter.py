"""A LoRA adapter as peft saves it, read and added to the weights that it belongs to."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.exchange.weight_file import WeightFile, open_weights
from densekit.files.json_files import read_object
from densekit.files.weight_files import few
from densekit.model.tensor_files import same_bits

ADAPTER_CONFIG = "adapter_config.json"
SHOWN = 200
"""Characters of a value in a message."""
FILES = ("adapter_model.safetensors", "adapter_model.bin")
_NAME = re.compile(
    r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight$"
)
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
"""What adapter_config.json may say of each setting that would change the sum. Other initialisations
(pissa, olora, corda, loftq) change the base's own weights too.
"""
WITHOUT_EFFECT = (
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "eva_config", "runtime_config", "megatron_core"),
    *("qalora_group_size", "ensure_weight_tying"),
)
"""Settings that say nothing about the sum, are in the tensors, or are read elsewhere. Any other, of
a later peft too, has to be off: null, false or empty.
"""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Low-rank additions to Linear modules: W + (alpha / r) B A."""

    folder: Path
    file: WeightFile
    r: int
    alpha: float
    base: str | None
    """base_model_name_or_path."""
    halves: Mapping[str, tuple[str, str]]
    """Names of A and B in the file, by the weight of the language model that they add to."""

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / self.r

    def check(self, shapes: Mapping[str, tuple[int, ...]], base: Path) -> None:
        """Raise DataError unless it fits the weights of the language model in `base`."""
        wrong = []
        for weight, (down, up) in self.halves.items():
            rank, inputs = self.file.shapes[down][1]
            outputs, rank_too = self.file.shapes[up][1]
            if shapes.get(weight) != (outputs, inputs) or {rank, rank_too} != {self.r}:
                wrong.append(weight)
        if wrong:
            raise DataError(
                f"{self.file.path} does not fit {base}: {few(wrong)} "
                f"{'is' if len(wrong) == 1 else 'are'} of another shape there or missing; the "
                f"adapter was trained on {self.base or 'a model that is not named'}: give that "
                "model with --base"
            )

    def read(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A [r, inputs] and B [outputs, r] by the weight that they add to."""
        tensors = self.file.read(self.file.shapes)
        return {name: (tensors[down], tensors[up]) for name, (down, up) in self.halves.items()}


def merged(weight: Tensor, low: tuple[Tensor, Tensor], scale: float, dtype: torch.dtype) -> Tensor:
    """W + scale * (B A), each step computed in `dtype`, as peft's merge does; in the memory of one
    tensor.
    """
    down, up = (half.to(dtype) for half in low)
    total = (up @ down).mul_(scale)
    # A narrower weight is widened value by value, without a copy of it.
    return total.add_(weight if dtype == torch.float32 else weight.to(dtype))


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder, its header read. Raises DataError where its weights are missing or
    damaged, and for a kind of adapter that is not plain LoRA.
    """
    path = folder / ADAPTER_CONFIG
    config = read_object(path, "r", "lora_alpha", remedy="copy it from the adapter's folder")
    for key, value in config.items():
        plain = value in PLAIN[key] if key in PLAIN else key in WITHOUT_EFFECT or not value
        if not plain:
            raise DataError(
                f"{path}: {key} is {json.dumps(value)[:SHOWN]}, and only plain LoRA is merged; "
                "merge this adapter with peft, and import the merged model"
            )
    r, alpha = config["r"], config["lora_alpha"]
    if not (_is_number(r, int) and _is_number(alpha, int, float)):
        raise DataError(
            f"{path}: r {json.dumps(r)} and lora_alpha {json.dumps(alpha)} must be numbers above "
            "0, and r a whole one; copy it from the adapter's folder"
        )
    file = _weights(folder)
    base = config.get("base_model_name_or_path")
    return Adapter(
        folder=folder,
        file=file,
        r=r,
        alpha=float(alpha),
        base=base if isinstance(base, str) and base else None,
        halves=_halves(file),
    )


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0  # type: ignore[operator]


def _weights(folder: Path) -> WeightFile:
    """The file of the adapter; of two that hold the same the first."""
    found = [open_weights(folder / name) for name in FILES if (folder / name).is_file()]
    if not found:
        raise DataError(f"{folder} holds {ADAPTER_CONFIG} and no {FILES[1]}: finish the download")
    if len(found) == 2:
        one, other = (file.read(file.shapes) for file in found)
        if one.keys() != other.keys() or any(not same_bits(one[n], other[n]) for n in one):
            raise DataError(
                f"{folder} holds {' and '.join(FILES)}, and they differ: which one counts is not "
                "said; remove the one that is not this adapter's"
            )
    return found[0]


def _halves(file: WeightFile) -> dict[str, tuple[str, str]]:
    found: dict[str, dict[str, str]] = {}
    strange, twice = [], []
    for name, (_, shape) in file.shapes.items():
        match = _NAME.match(name)
        if match is None or len(shape) != 2:
            strange.append(name)
            continue
        halves = found.setdefault(f"{match['module']}.weight", {})
        if match["half"] in halves:
            twice.append(name)
        halves[match["half"]] = name
    if strange or not found:
        raise DataError(
            f"{file.path} holds {few(strange) or 'nothing'}, which no plain LoRA adapter of a "
            "language model has: merge it with peft, and import the merged model"
        )
    if twice:
        raise DataError(
            f"{file.path} holds {few(twice)} under another name too: which one counts is not said; "
            "copy the file from the adapter's folder again"
        )
    if alone := [weight for weight, halves in found.items() if len(halves) != 2]:
        raise DataError(f"{file.path} holds only half of the adapters of {few(alone)}")
    return {weight: (halves["A"], halves["B"]) for weight, halves in found.items()}
