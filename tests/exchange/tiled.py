"""An official folder of an AnyRes model: the committed full checkpoint with a newline vector."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.exchange.official_folders import copied, edit_config

PINPOINTS = ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168))
"""Width and height; a tile has 56 pixels and 4 x 4 tokens."""


def newline() -> torch.Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(5)) / 8


def tiled(golden_exchange: Path, folder: Path, **changes: Any) -> Path:
    """The folder; `changes` to its config.json."""
    copied(golden_exchange / "given" / "clip_dci" / "stage2", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.image_newline"] = newline()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stated = {
        "image_aspect_ratio": "anyres",
        "mm_patch_merge_type": "spatial_unpad",
        "image_grid_pinpoints": [[*size] for size in PINPOINTS],
        **changes,
    }
    edit_config(folder, **stated)
    return folder
