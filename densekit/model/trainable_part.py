"""What is trained: projector and language model over one micro-batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ModelOutput

from densekit.model.loss import weighted_cross_entropy
from densekit.model.micro_batch import MicroBatch
from densekit.model.packing import PackedSequences
from densekit.model.towers.base import VisionTower
from densekit.spec.types import Positions


@dataclass
class PackedOutput(ModelOutput):
    """Result of one micro-batch.

    loss: weighted sum over label positions, 0-dim; logits: [K, V] at the label positions.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class TrainablePart(nn.Module):
    """Everything behind the frozen tower: what is trained, and all that an engine has to shard.

        (pixel_values [I, 3, H, W] -> vision_tower -> frozen half of the connector ->)
        dense_features [I, N, C] -> projector -> [I * N, H] \\
                                                            image slots of [T, H]
        input_ids [T] -> token embeddings -> [T, H]        /
            -> decoder layers, attention within cu_seqlens -> [T, H]
            -> label positions only -> lm_head -> logits [K, V] -> weighted cross-entropy -> loss

    Its modules are those of the model that it belongs to, so parameters are named `projector.*`,
    `language_model.*` and `vision_tower.*`. A frozen tower stays outside: it needs no hooks and no
    gathering, and the part is given its dense features. A trained one is inside (`train_tower`),
    and the part is given pixels.
    """

    def __init__(
        self,
        projector: nn.Module,
        language_model: nn.Module,
        image_newline: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image_newline = image_newline
        """Ends every row of an image's tiles, under AnyRes [H]."""
        self.projector = projector
        self.language_model: Any = language_model
        self.vision_tower: VisionTower | None = None
        self.encode: Callable[[Tensor], Tensor] | None = None
        self.positions: Positions = "exact"
        """What the language model's rotary tables are computed from."""

    def train_tower(self, tower: VisionTower, encode: Callable[[Tensor], Tensor]) -> None:
        """Take in the tower: `encode` makes dense features [I, N, C] of pixels with its graph."""
        self.vision_tower, self.encode = tower, encode

    def embed(
        self, micro_batch: MicroBatch, images: Tensor, windows: Tensor | None = None
    ) -> Tensor:
        """Embeddings [T, H] of a micro-batch, its image slots filled from `images`: dense features
        [I, N, C] of a frozen tower, pixels [I, 3, H, W] where it is trained; and from `windows`
        [I, P, W, A] of a high-resolution tower, where there is one.

        A micro-batch without slots still runs tower and projector, so that every rank calls every
        parameter.
        """
        dense_features = images if self.encode is None else self.encode(images)
        given = (dense_features,) if windows is None else (dense_features, windows)
        features_IN_H = self.projector(*given).flatten(0, 1)
        if self.image_newline is not None:  # the last row, which feature_index -1 takes
            newline_1H = self.image_newline().to(features_IN_H.dtype)
            features_IN_H = torch.cat([features_IN_H, newline_1H])
        embeddings_TH: Tensor = self.language_model.get_input_embeddings()(micro_batch.input_ids)
        filled = features_IN_H[micro_batch.feature_index].to(embeddings_TH.dtype)
        return embeddings_TH.index_put((micro_batch.image_slots,), filled)

    def forward(
        self, micro_batch: MicroBatch, images: Tensor, windows: Tensor | None = None
    ) -> PackedOutput:
        """Loss and logits; lm_head runs on the K label positions only. `images` and `windows` as
        for `embed`.
        """
        embeddings_TH = self.embed(micro_batch, images, windows)
        output = self.language_model(
            inputs_embeds=embeddings_TH[None],
            position_ids=as_trained(micro_batch.position_ids, self.positions)[None],
            attention_mask=None,
            use_cache=False,
            sequences=PackedSequences(micro_batch.cu_seqlens, embeddings_TH.device),
            logits_to_keep=micro_batch.label_positions,
        )
        logits_KV = output.logits[0]
        loss = weighted_cross_entropy(logits_KV, micro_batch.targets, micro_batch.weights)
        return PackedOutput(loss=loss, logits=logits_KV)


def as_trained(position_ids: Tensor, positions: Positions) -> Tensor:
    """Positions [T] that rotary tables are computed from; bf16 has 8 bits, so neighbours behind 256
    share one (docs/upstream.md, U12).
    """
    if positions == "exact":
        return position_ids
    return position_ids.to(torch.bfloat16).to(position_ids.dtype)
