"""CLIP vision towers: a CLS token first, and a norm in front of the first block."""

from torch import Tensor
from transformers import CLIPVisionModel

from densekit.model.towers.base import VisionTower


class ClipTower(VisionTower):
    """hidden_states[0] is the embedding after the pre-layernorm."""

    model_class = CLIPVisionModel
    has_cls = True

    def embed(self, pixel_values: Tensor) -> Tensor:
        embedded: Tensor = self.model.embeddings(pixel_values)
        # "pre_layrnorm" is how transformers spells it.
        normed: Tensor = self.model.pre_layrnorm(embedded)
        return normed
