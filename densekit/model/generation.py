"""Prompts with images as one left-padded batch of embeddings, for generation."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def left_padded(
    prompts: Sequence[Tensor] | Tensor,
    features: Sequence[Tensor],
    embed: nn.Module,
    *,
    image_token_id: int,
    max_prompt: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeddings [B, T, H] and attention mask [B, T] of B prompts, the shorter ones padded in
    front.

    prompts: [B, T] or B of [T_b], with `image_token_id` once per image; features: [N_i, H] of every
    image, in order of the tags. A prompt longer than `max_prompt` with its images is cut at its
    end, as the official code does (docs/upstream.md, 1.4). Raises ValueError when tags and
    images differ in number.
    """
    pieces = [_pieces(prompt, image_token_id) for prompt in prompts]
    tags = sum(len(parts) - 1 for parts in pieces)
    if tags != len(features):
        raise ValueError(f"{tags} image tags in the prompts, {len(features)} images given")
    images = iter(features)
    joined = [_join(parts, images, embed)[:max_prompt] for parts in pieces]
    longest = max(len(prompt) for prompt in joined)
    embeddings = joined[0].new_zeros(len(joined), longest, joined[0].shape[-1])
    mask = torch.zeros(len(joined), longest, dtype=torch.long, device=embeddings.device)
    for number, prompt in enumerate(joined):
        embeddings[number, longest - len(prompt) :] = prompt
        mask[number, longest - len(prompt) :] = 1
    return embeddings, mask


def _pieces(prompt: Tensor, image_token_id: int) -> list[Tensor]:
    tags = (prompt == image_token_id).nonzero().flatten().tolist()
    edges = [-1, *tags, len(prompt)]
    return [prompt[a + 1 : b] for a, b in itertools.pairwise(edges)]


def _join(pieces: list[Tensor], images: Iterator[Tensor], embed: nn.Module) -> Tensor:
    parts = [embed(pieces[0])]
    for piece in pieces[1:]:
        parts += [next(images).to(parts[0].dtype), embed(piece)]
    return torch.cat(parts)
