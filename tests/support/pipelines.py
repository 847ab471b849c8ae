"""A small model with random weights that answers: a byte-level tokenizer, any template."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from densekit.data.pixels import ImageProcessor
from densekit.exchange.pipeline import Pipeline
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.conversation import ConversationSettings
from densekit.spec.types import Semantics
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.fast import FastTokenizer
from tests.support.models import small_config

SPECIAL = (
    "</s>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
)
MAX_LENGTH = 1200


def byte_tokenizer(special: tuple[str, ...] = SPECIAL, eos: str = "</s>") -> FastTokenizer:
    """A token per byte, and the special ones behind."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([*special])
    return FastTokenizer(json.dumps(json.loads(made.to_str())), special={"eos_token": eos})


def made_pipeline(template: str = "v1", semantics: Semantics = "faithful") -> Pipeline:
    """Two-layer language model, four-layer CLIP, DCI; 4 tokens per image."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = small_config(vocabulary=tokenizer.vocab_size, positions=2 * MAX_LENGTH)
    return Pipeline(
        model=DenseConnectorForConditionalGeneration(config).eval(),
        conversation=ConversationSettings(
            template=template, semantics=semantics, image_aspect_ratio="pad", max_length=MAX_LENGTH
        ),
        tokenizer=tokenizer,
        encoder=SampleEncoder(
            tokenizer=tokenizer, template=template, semantics=semantics, max_length=MAX_LENGTH
        ),
        processor=ImageProcessor(
            resize="shortest_edge",
            size=28,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            aspect_ratio="pad",
        ),
    )
