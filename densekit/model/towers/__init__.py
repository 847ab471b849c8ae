"""Vision towers: frozen models that end at the last layer that is read, one module per family.

A new family is a module here with a subclass of `VisionTower`, and a line of FAMILIES.
"""

from pathlib import Path

import torch
from transformers.configuration_utils import PreTrainedConfig

from densekit.model.towers.base import VisionTower
from densekit.model.towers.clip import ClipTower
from densekit.model.towers.siglip import SiglipTower

FAMILIES: dict[str, type[VisionTower]] = {
    "clip_vision_model": ClipTower,
    "siglip_vision_model": SiglipTower,
}
"""By the model type that a vision configuration states."""


def vision_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The vision part of a configuration (itself when it is one).

    Raises ValueError for a model type of no known family.
    """
    config = getattr(config, "vision_config", config)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"vision tower of type {config.model_type!r}: only {', '.join(FAMILIES)} are supported"
        )
    return config


def make_tower(config: PreTrainedConfig, last_layer: int) -> VisionTower:
    """A tower of blocks 1..`last_layer`, its weights not read.

    Raises ValueError when the model has fewer layers.
    """
    vision = vision_config_of(config)
    return FAMILIES[vision.model_type](vision, last_layer)


def load_tower(
    directory: Path, config: PreTrainedConfig, last_layer: int, dtype: torch.dtype
) -> VisionTower:
    """The blocks 1..`last_layer` of a tower in transformers' format, with their weights."""
    vision = vision_config_of(config)
    return FAMILIES[vision.model_type].from_pretrained(directory, vision, last_layer, dtype)


def num_patches(config: PreTrainedConfig) -> int:
    """Patch tokens of one image, without CLS."""
    vision = vision_config_of(config)
    return int(vision.image_size // vision.patch_size) ** 2
