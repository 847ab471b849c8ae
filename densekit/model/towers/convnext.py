"""The high-resolution tower of patch info mining: an OpenCLIP ConvNeXt without its head."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextConfig, ConvNextModel

from densekit.errors import DataError
from densekit.files.weight_files import Kinds, few, kind_of
from densekit.spec.mining import (
    IMAGES_PER_PASS,
    STEM,
    Mining,
    conv_tower_of,
    tower_files,
    trunk_names,
)

NAMES = (
    (r"^stem\.0\.", "embeddings.patch_embeddings."),
    (r"^stem\.1\.", "embeddings.layernorm."),
    (r"^stages\.(\d+)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.norm\.", ".layernorm."),
    (r"\.mlp\.fc1\.", ".pwconv1."),
    (r"\.mlp\.fc2\.", ".pwconv2."),
    (r"\.gamma$", ".layer_scale_parameter"),
)
"""timm's names, which OpenCLIP's files have too -> transformers'."""
DROPPED: Kinds = (("tensors of the head and the last norm", r"^(norm_pre|head|norm)\."),)


class HighResolutionTower(nn.Module):
    """Stem and stages of a ConvNeXt; its last norm and its head do not exist.

    high_resolution [I, 3, H, H] -> stem -> stages [I, C_s, H / 2**(2 + s), H / 2**(2 + s)]
    """

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        model: Any = ConvNextModel(config)
        model.layernorm = nn.Identity()
        self.model = model

    def stages(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """What each stage makes of images [I, 3, H, H]."""
        state = self.model.embeddings(pixel_values)
        for stage in self.model.encoder.stages:
            state = stage(state)
            yield state

    def windows(self, pixel_values: Tensor, window: int) -> Tensor:
        """The positions of every patch [I, P, window**2, C], row by row in patches and in windows:
        the later stages interpolated in fp32 to the first one's size, C channels of all stages.
        """
        side = pixel_values.shape[-1] // STEM // window
        channels = sum(self.model.config.hidden_sizes)
        grid = pixel_values.new_empty(len(pixel_values), side, side, window, window, channels)
        for images, part in zip(
            pixel_values.split(IMAGES_PER_PASS), grid.split(IMAGES_PER_PASS), strict=True
        ):
            first = 0
            for state in self.stages(images):
                # [I, C, side, window, side, window] -> [I, side, side, window, window, C]
                wide = _widened(state, side * window).unflatten(3, (side, window))
                laid = wide.unflatten(2, (side, window)).permute(0, 2, 4, 3, 5, 1)
                part[..., first : first + state.shape[1]] = laid
                first += state.shape[1]
                del wide, laid
        return grid.flatten(1, 2).flatten(2, 3)


def _widened(state: Tensor, size: int) -> Tensor:
    """A stage at the first one's size, in fp32 where it is interpolated."""
    if state.shape[-1] == size:
        return state
    return F.interpolate(state.float(), size=(size, size), mode="bilinear", align_corners=False)


def conv_config(folder: Path, mining: Mining) -> ConvNextConfig:
    """The transformers configuration of the ConvNeXt in a folder, by the sizes of its tensors.
    Raises DataError.
    """
    shape = conv_tower_of({name: entry for name, (_, entry) in _shapes(folder).items()}, folder)
    least = STEM * 2 ** (len(shape.depths) - 1)
    if mining.image_size < least:
        raise DataError(
            f"high-resolution tower: connector.mining.image_size is {mining.image_size}, and the "
            f"{len(shape.depths)} stages of the ConvNeXt in {folder} need {least} pixels a side: "
            "set a larger size and a window that fits it"
        )
    return ConvNextConfig(
        hidden_sizes=[*shape.widths],
        depths=[*shape.depths],
        num_stages=len(shape.depths),
        drop_path_rate=mining.drop_path,
        hidden_act="gelu",
    )


def load_high_resolution_tower(
    folder: Path, config: ConvNextConfig, dtype: torch.dtype
) -> HighResolutionTower:
    """The ConvNeXt in a folder, as `densekit convert` made it of OpenCLIP's file or as timm has it.

    Raises DataError naming tensors that are missing, of another shape or not expected: nothing is
    drawn.
    """
    with torch.device("meta"):
        tower = HighResolutionTower(config)
    expected = tower.model.state_dict()
    found: dict[str, Tensor] = {}
    faults: dict[str, list[str]] = {"missing": [], "unexpected": [], "of another shape": []}
    for short, (file, _) in _shapes(folder).items():
        if kind_of(short, DROPPED):
            continue
        name = transformers_name(short)
        if name not in expected:
            faults["unexpected"].append(short)
            continue
        with safe_open(file, "pt") as opened:
            stored = trunk_names(opened.keys())
            found[name] = opened.get_tensor(stored[short]).to(dtype)
        if found[name].shape != expected[name].shape:
            faults["of another shape"].append(short)
    faults["missing"] = [name for name in expected if name not in found]
    said = [f"{len(names)} {fault} ({few(names)})" for fault, names in faults.items() if names]
    if said:
        raise DataError(
            f"high-resolution tower: the tensors in {folder} are not those of a ConvNeXt: "
            f"{', '.join(said)}; nothing is drawn in their place: download the folder again"
        )
    tower.model.load_state_dict(found, assign=True)
    return tower


def transformers_name(name: str) -> str:
    """transformers' name of a tensor of timm's ConvNeXt."""
    for pattern, instead in NAMES:
        name = re.sub(pattern, instead, name)
    return name


def _shapes(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    tensors, problems = tower_files(folder)
    if problems:
        raise DataError(f"high-resolution tower: {'; '.join(problems)}")
    return {
        short: (tensors[name].file, tuple(tensors[name].entry.shape))
        for short, name in trunk_names(tensors).items()
    }
