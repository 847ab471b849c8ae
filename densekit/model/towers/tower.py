"""The frozen vision tower: a transformers CLIP or SigLIP vision model that stops at the last layer
it needs.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, SiglipVisionModel
from transformers.configuration_utils import PreTrainedConfig

_CLASSES = {"clip_vision_model": CLIPVisionModel, "siglip_vision_model": SiglipVisionModel}


def vision_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The vision part of a CLIP/SigLIP configuration (itself when it is one).

    Raises ValueError for any other model type.
    """
    config = getattr(config, "vision_config", config)
    if config.model_type not in _CLASSES:
        raise ValueError(
            f"vision tower of type {config.model_type!r}: only CLIP and SigLIP vision models are known"
        )
    return config


class VisionTower(nn.Module):
    """CLIP or SigLIP vision blocks 1..`last_layer`; later blocks, the final norm and the head do
    not exist.

    The high-level layer is hidden_states[-2] of CLIP (its last block is never used) and the output
    of the last-but-one SigLIP block, both `num_hidden_layers - 1` (recorded quirk 10).
    """

    def __init__(self, config: PreTrainedConfig, last_layer: int) -> None:
        super().__init__()
        config = vision_config_of(config)
        if last_layer > config.num_hidden_layers:
            raise ValueError(
                f"hidden_states[{last_layer}] is asked of a tower with {config.num_hidden_layers} layers"
            )
        truncated = copy.deepcopy(config)
        truncated.num_hidden_layers = last_layer
        if config.model_type == "siglip_vision_model":
            truncated.vision_use_head = False
        self.has_cls = config.model_type == "clip_vision_model"
        self.model = _CLASSES[config.model_type](truncated)
        self.model.post_layernorm = nn.Identity()

    @classmethod
    def from_pretrained(
        cls, directory: str, config: PreTrainedConfig, last_layer: int, dtype: torch.dtype
    ) -> "VisionTower":
        """Load only the blocks that run from a transformers CLIP/SigLIP directory."""
        with torch.device("meta"):
            tower = cls(config, last_layer)
        loaded = type(tower.model).from_pretrained(
            directory,
            config=copy.deepcopy(vision_config_of(config)),
            dtype=dtype,
            local_files_only=True,
        )
        loaded.encoder.layers = loaded.encoder.layers[:last_layer]
        loaded.config.num_hidden_layers = last_layer
        loaded.post_layernorm = nn.Identity()
        if hasattr(loaded, "head"):
            loaded.use_head = False
            del loaded.head
        tower.model = loaded
        return tower

    def hidden_states(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """Yield hidden_states[0], [1], ..., [last_layer] without the CLS token, each [I, P, D].

        pixel_values: [I, 3, H, W], normalised. The caller decides about gradients.
        """
        for state in self.states_with_cls(pixel_values):
            yield state[:, 1:] if self.has_cls else state

    def states_with_cls(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """The same states with CLIP's CLS token first, as transformers numbers them."""
        state = self.model.embeddings(pixel_values)
        if self.has_cls:
            state = self.model.pre_layrnorm(state)
        yield state
        for layer in self.model.encoder.layers:
            state = layer(state, attention_mask=None)
            yield state


def num_patches(config: PreTrainedConfig) -> int:
    """Patch tokens of one image, without CLS."""
    vision = vision_config_of(config)
    return int(vision.image_size // vision.patch_size) ** 2
