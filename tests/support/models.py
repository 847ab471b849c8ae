"""A small model with random weights, and micro-batches of text for it: tests that need no recorded
numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from densekit.model.config import DenseConnectorConfig
from densekit.model.micro_batch import MicroBatch
from densekit.model.vlm import DenseConnectorForConditionalGeneration

VOCABULARY = 97


def small_model(
    *, kv_heads: int = 2, seed: int = 0, tied: bool = False
) -> DenseConnectorForConditionalGeneration:
    """Two-layer GQA language model, four-layer CLIP, DCI; 4 patches per image."""
    torch.manual_seed(seed)
    config = small_config(kv_heads=kv_heads, tied=tied)
    return DenseConnectorForConditionalGeneration(config)


def small_config(
    *,
    kv_heads: int = 2,
    tied: bool = False,
    vocabulary: int = VOCABULARY,
    positions: int = 256,
) -> DenseConnectorConfig:
    """Its configuration, also with another tokenizer's vocabulary."""
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    connector = {"kind": "dci", "groups": [[0, 1], [2, 3]]}
    return DenseConnectorConfig(text_config=text, vision_config=vision, connector=connector)


NO_IMAGE = torch.zeros(1, 3, 28, 28)
"""What the tower gets of a micro-batch without an image."""


def micro_batch(
    lengths: Sequence[int],
    *,
    input_ids: Tensor | None = None,
    label_positions: Tensor | None = None,
    targets: Tensor | None = None,
    weights: Tensor | None = None,
    image_slots: int = 0,
) -> MicroBatch:
    """Sequences of these lengths: drawn ids, every position with a label, the first `image_slots`
    positions filled from an image.
    """
    total = sum(lengths)
    if input_ids is None:
        generator = torch.Generator().manual_seed(1)
        input_ids = torch.randint(0, VOCABULARY, (total,), generator=generator)
    positions = torch.arange(total) if label_positions is None else label_positions
    return MicroBatch(
        input_ids=input_ids,
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        pixels=torch.zeros(0, 3, 28, 28, dtype=torch.uint8),
        image_slots=torch.arange(image_slots),
        feature_index=torch.arange(image_slots),
        label_positions=positions,
        targets=positions % VOCABULARY if targets is None else targets,
        weights=torch.full((len(positions),), 1 / max(1, total)) if weights is None else weights,
    )
