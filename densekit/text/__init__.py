"""Turns conversations into token ids and labels, without torch or transformers."""

from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN, IMAGE_TOKEN_ID
from densekit.text.encode import EncodedSample, SampleEncoder
from densekit.text.lengths import modality_length
from densekit.text.sequence import ModelSequence, model_sequence
from densekit.text.templates import TEMPLATES, Template, get_template
from densekit.text.tokenizers.base import Encoding, Tokenizer, load_tokenizer

__all__ = [
    "IGNORE_INDEX",
    "IMAGE_TOKEN",
    "IMAGE_TOKEN_ID",
    "TEMPLATES",
    "EncodedSample",
    "Encoding",
    "ModelSequence",
    "SampleEncoder",
    "Template",
    "Tokenizer",
    "get_template",
    "load_tokenizer",
    "modality_length",
    "model_sequence",
]
