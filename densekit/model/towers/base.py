"""What the vision towers of every family have in common: the blocks that run, and their states."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from densekit.files.weight_files import BUFFERS, Kinds
from densekit.model.pretrained import DROPPED_OF_TOWERS, check_pretrained, load_pretrained


class VisionTower(nn.Module, ABC):
    """Vision blocks 1..`last_layer`; later blocks, the final norm and the head do not exist.

        pixel_values [I, 3, H, W] -> embed -> hidden_states[0] [I, P, D]
            -> block 1 -> hidden_states[1] -> ... -> block `last_layer` -> hidden_states[last_layer]

    The high-level layer is `num_hidden_layers - 1` in every family: hidden_states[-2] of CLIP,
    whose last block is never used, and the output of the last but one SigLIP block
    (docs/upstream.md, Q10).
    """

    model_class: ClassVar[type[PreTrainedModel]]
    has_cls: ClassVar[bool]
    """Whether the states of the transformers model begin with a CLS token."""

    def __init__(self, config: PreTrainedConfig, last_layer: int) -> None:
        super().__init__()
        if last_layer > config.num_hidden_layers:
            raise ValueError(
                f"hidden_states[{last_layer}] is asked of a tower with "
                f"{config.num_hidden_layers} layers"
            )
        truncated = copy.deepcopy(config)
        truncated.num_hidden_layers = last_layer
        self.model: Any = self._bare(truncated)
        self.model.post_layernorm = nn.Identity()

    @classmethod
    def _bare(cls, config: PreTrainedConfig) -> PreTrainedModel:
        """A model of this configuration without its head."""
        return cls.model_class(config)

    @classmethod
    def from_pretrained(
        cls, directory: Path, config: PreTrainedConfig, last_layer: int, dtype: torch.dtype
    ) -> Self:
        """Load from a folder in transformers' format and keep only the blocks that run."""
        with torch.device("meta"):
            tower = cls(config, last_layer)
        loaded: Any = load_pretrained(
            cls.model_class,
            directory,
            what="vision tower",
            config=copy.deepcopy(tower.model.config),
            dtype=dtype,
            dropped=_dropped(last_layer, config),
        )
        loaded.post_layernorm = nn.Identity()
        tower.model = loaded
        return tower

    def check_files(self, directory: Path, config: PreTrainedConfig) -> None:
        """Raise DataError where the headers in a folder are not those of this tower, made of
        `config`, the whole one.
        """
        check_pretrained(
            self.model_class,
            directory,
            what="vision tower",
            config=self.model.config,
            dropped=_dropped(self.model.config.num_hidden_layers, config),
        )

    def checkpoint_activations(self) -> None:
        """Recompute the activations of every block in backward, where it is trained."""
        enable = getattr(self.model, "activation_checkpointing_enable", None)
        enable = enable or self.model.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    @abstractmethod
    def embed(self, pixel_values: Tensor) -> Tensor:
        """`hidden_states[0]`: [I, P, D] of images [I, 3, H, W], with CLS where there is one."""

    def hidden_states(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """Yield hidden_states[0], [1], ..., [last_layer] without the CLS token, each [I, P, D].

        pixel_values: [I, 3, H, W], normalised. The caller decides about gradients.
        """
        for state in self.states_with_cls(pixel_values):
            yield state[:, 1:] if self.has_cls else state

    def states_with_cls(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """The same states with CLIP's CLS token first, as transformers numbers them."""
        state = self.embed(pixel_values)
        yield state
        for layer in self.model.encoder.layers:
            state = layer(state, attention_mask=None)
            yield state


def _dropped(last_layer: int, config: PreTrainedConfig) -> Kinds:
    """Tensors that a tower of `last_layer` blocks does not have."""
    blocks = rf"^(?!text_model\.).*encoder\.layers\.({_numbers_from(last_layer, config)})\."
    return (
        (f"tensors of blocks past {last_layer}, the last one read", blocks),
        *DROPPED_OF_TOWERS,
        *BUFFERS,
    )


def _numbers_from(first: int, config: PreTrainedConfig) -> str:
    """A pattern for the indices of the blocks that are not built."""
    return "|".join(str(number) for number in range(first, config.num_hidden_layers)) or "none"
