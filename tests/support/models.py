"""A small model with random weights, for tests that need no recorded numbers."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig

from densekit.model.config import DenseConnectorConfig
from densekit.model.vlm import DenseConnectorForConditionalGeneration

VOCABULARY = 97


def small_model(
    *, kv_heads: int = 2, seed: int = 0, tied: bool = False
) -> DenseConnectorForConditionalGeneration:
    """Two-layer GQA language model, four-layer CLIP, DCI; 4 patches per image."""
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
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
    config = DenseConnectorConfig(text_config=text, vision_config=vision, connector=connector)
    return DenseConnectorForConditionalGeneration(config)
