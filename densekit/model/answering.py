"""Answers of a model to prompts: the one place where tokens are chosen, for conversations,
evaluation, exports and the held-out questions of tiny recipes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from densekit.model.frames import TaggedFrames
from densekit.model.vlm import DenseConnectorForConditionalGeneration

LOWEST_TEMPERATURE = 1e-3
"""Below, sampling is greedy with a division by almost nothing: say 0."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the tokens of an answer are chosen, and when it ends."""

    end_tokens: tuple[int, ...]
    """See densekit.text.answers; empty: only the number of tokens ends an answer."""
    max_new_tokens: int
    temperature: float = 0.0
    """0: greedy. Else sampled, by torch's generator."""
    top_k: int = 0
    """Sampled from so many of the likeliest tokens; 0: from all."""
    num_beams: int = 1
    max_prompt: int | None = None
    """A prompt that is longer with its images is cut at its end, as the official code does."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """New ids of B prompts."""

    ids: list[list[int]]
    """Of each prompt, up to and with its end token, nothing behind."""
    first_logits: Tensor | None
    """[B, V] fp32, at the last position of each prompt; None where they were not asked for."""


def generate(
    model: DenseConnectorForConditionalGeneration,
    prompts: Sequence[Tensor],
    pixel_values: Tensor | None,
    decoding: Decoding,
    *,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    frames: TaggedFrames | None = None,
    on_token: Callable[[int], None] | None = None,
    logits: bool = False,
) -> Generated:
    """Answer B prompts [T_b] with the image token once per image, in one batch padded on the left.

    pixel_values: [I, 3, H, W] of all images in order of the tags, None without any; under AnyRes
    their tiles, and `image_sizes` their (width, height); `frames`: which images are those of
    videos. `on_token` gets each new id of a single prompt as it comes. `logits` keeps those of
    every step until the end: for short answers. Nothing of the generation settings that a
    published folder brings along is used: they would change the answers silently. Raises
    ValueError when tags and images differ in number.
    """
    assert on_token is None or len(prompts) == 1, "tokens of one prompt can be told apart"
    device = model.device
    language_model = model.language_model
    brought, language_model.generation_config = (
        language_model.generation_config,
        _configuration(decoding, logits),
    )
    try:
        output = model.generate(
            [prompt.to(device) for prompt in prompts],
            None if pixel_values is None else pixel_values.to(device),
            image_sizes=image_sizes,
            frames=frames,
            max_prompt=decoding.max_prompt,
            streamer=None if on_token is None else _Streamer(on_token),
        )
    finally:
        language_model.generation_config = brought
    rows = output.sequences.tolist()
    return Generated(
        ids=[_ended(row, decoding.end_tokens) for row in rows],
        first_logits=output.logits[0].float() if logits else None,
    )


def _configuration(decoding: Decoding, logits: bool) -> GenerationConfig:
    sampling = {}
    if decoding.temperature >= LOWEST_TEMPERATURE:
        sampling = {
            "do_sample": True,
            "temperature": decoding.temperature,
            "top_k": decoding.top_k,
        }
    ends = [*decoding.end_tokens]
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.num_beams,
        eos_token_id=ends or None,
        # Behind an end token, where other rows go on; cut off again.
        pad_token_id=ends[0] if ends else 0,
        return_dict_in_generate=True,
        output_logits=logits,
        **sampling,
    )


def _ended(row: list[int], ends: Sequence[int]) -> list[int]:
    length = next((place + 1 for place, id_ in enumerate(row) if id_ in ends), len(row))
    return row[:length]


class _Streamer(BaseStreamer):
    """Hands each new id on; transformers puts the ids of the prompt first, here none."""

    def __init__(self, on_token: Callable[[int], None]) -> None:
        self._on_token = on_token

    def put(self, value: Tensor) -> None:
        for id_ in value.flatten().tolist():
            self._on_token(id_)

    def end(self) -> None:
        pass
