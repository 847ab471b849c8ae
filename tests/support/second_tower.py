"""The recorded tiny ConvNeXt in a folder as OpenCLIP's are."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from densekit.files.json_files import write_json
from densekit.model.init import initial_projector
from densekit.model.projector import Projector
from densekit.spec.connector import Connector
from tests.support.paths import GOLDEN_VARIANTS

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def conv_weights() -> dict[str, Tensor]:
    """By timm's names: widths 8, 16, 32 and 64, depths 1, 1, 2 and 1."""
    return load_file(GOLDEN_VARIANTS / "mgm" / "convnext.safetensors")


def open_clip(folder: Path, weights: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """The folder, with a text tower and a head beside the trunk; `config`: other normalisation."""
    folder.mkdir()
    weights = conv_weights() if weights is None else weights
    named = {f"visual.trunk.{name}": value for name, value in weights.items()}
    others = {"text.positional_embedding": torch.ones(2), "visual.head.proj.weight": torch.ones(2)}
    save_file(named | others, folder / "open_clip_model.safetensors")
    pixels = {"mean": CLIP_MEAN, "std": CLIP_STD} | config
    write_json(folder / "open_clip_config.json", {"preprocess_cfg": pixels})
    return folder


def drawn_mining(connector: Connector, width: int, hidden: int) -> dict[str, Tensor]:
    """Initial weights of a connector that mines, its attention far from uniform."""
    with torch.device("meta"):
        projector = Projector(connector, width, hidden, window_channels=120)
    drawn = initial_projector(projector, seed=3)
    generator = torch.Generator().manual_seed(5)
    for key, value in drawn.items():
        if key.startswith("mining."):
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    return {f"connector.{key}": value for key, value in drawn.items()}
