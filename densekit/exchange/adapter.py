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

ADAPTER_CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
_NAME = re.compile(
    r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight$"
)
PLAIN: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("peft_type", ("LORA",)),
    ("bias", ("none", None)),
    ("fan_in_fan_out", (False, None)),
    ("modules_to_save", (None, [])),
    ("use_dora", (False, None)),
    ("use_rslora", (False, None)),
    ("rank_pattern", ({}, None)),
    ("alpha_pattern", ({}, None)),
    ("init_lora_weights", (True, False, None, "gaussian", "eva", "orthogonal")),
)
"""What adapter_config.json may say of each setting that would change the sum. Other initialisations
(pissa, olora, corda, loftq) change the base's own weights too.
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
    for key, taken in PLAIN:
        if key in config and config[key] not in taken:
            raise DataError(
                f"{path}: {key} is {json.dumps(config[key])}, and only plain LoRA is merged; merge "
                "this adapter with peft, and import the merged model"
            )
    r, alpha = config["r"], config["lora_alpha"]
    if not all(isinstance(value, int | float) and value > 0 for value in (r, alpha)):
        raise DataError(f"{path}: r {r} and lora_alpha {alpha} must be numbers above 0")
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        raise DataError(f"{folder} holds {ADAPTER_CONFIG} and no {FILES[1]}: finish the download")
    file = open_weights(found[0])
    base = config.get("base_model_name_or_path")
    return Adapter(
        folder=folder,
        file=file,
        r=int(r),
        alpha=float(alpha),
        base=base if isinstance(base, str) and base else None,
        halves=_halves(file),
    )


def _halves(file: WeightFile) -> dict[str, tuple[str, str]]:
    found: dict[str, dict[str, str]] = {}
    strange = []
    for name in file.shapes:
        match = _NAME.match(name)
        if match is None or len(file.shapes[name][1]) != 2:
            strange.append(name)
        else:
            found.setdefault(f"{match['module']}.weight", {})[match["half"]] = name
    if strange or not found:
        raise DataError(
            f"{file.path} holds {few(strange) or 'nothing'}, which no plain LoRA adapter of a "
            "language model has: merge it with peft, and import the merged model"
        )
    if alone := [weight for weight, halves in found.items() if len(halves) != 2]:
        raise DataError(f"{file.path} holds only half of the adapters of {few(alone)}")
    return {weight: (halves["A"], halves["B"]) for weight, halves in found.items()}
