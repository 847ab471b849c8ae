"""SigLIP vision towers: patch tokens alone; the attention-pooling head is never built."""

from torch import Tensor
from transformers import SiglipVisionModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from densekit.model.towers.base import VisionTower


class SiglipTower(VisionTower):
    """hidden_states[0] is the embedding output itself."""

    model_class = SiglipVisionModel
    has_cls = False

    @classmethod
    def _bare(cls, config: PreTrainedConfig) -> PreTrainedModel:
        config.vision_use_head = False
        return super()._bare(config)

    def embed(self, pixel_values: Tensor) -> Tensor:
        embedded: Tensor = self.model.embeddings(pixel_values)
        return embedded
