"""What densekit computes for a recorded batch, in the shapes in which the recordings hold it."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import normalise
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.parity.names import by_official_name
from densekit.train.step_dataset import SampleReader


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters under their official names."""
    return by_official_name({name: p for name, p in model.named_parameters() if p.requires_grad})


def gradient(parameter: torch.nn.Parameter) -> Tensor:
    """Its gradient; zeros where backward left none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def normalised_pixels(reader: SampleReader, index: int) -> Tensor:
    """Float pixels [1, 3, S, S] of a sample as the official batch holds them: zeros for a text-only
    one (docs/upstream.md, Q8).
    """
    image = reader.image(index)
    if image is None:
        return torch.zeros(1, 3, reader.processor.size, reader.processor.size)
    views = image.pixels.reshape(-1, *image.pixels.shape[-3:])
    return normalise(torch.from_numpy(views), torch.from_numpy(reader.processor.lookup_table()))


@torch.no_grad()
def run_everywhere(
    model: DenseConnectorForConditionalGeneration, micro_batch: MicroBatch, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings [T, H] and float64 logits [T, V] at every position of a packed micro-batch, not
    only at the label positions.
    """
    embeddings = model.trainable_part.embed(
        micro_batch, model.images_of(images), model.windows_of(images)
    )
    tokens = len(micro_batch.input_ids)
    everywhere = replace(
        micro_batch,
        label_positions=torch.arange(tokens),
        targets=torch.zeros(tokens, dtype=torch.int64),
        weights=torch.zeros(tokens),
    )
    return embeddings, model(everywhere, images).logits.double()


def pad(sequences: list[np.ndarray], value: float) -> np.ndarray:
    """Sequences of different length, right-padded: [B, longest]."""
    longest = max(len(sequence) for sequence in sequences)
    return np.stack(
        [
            np.concatenate([part, np.full(longest - len(part), value, dtype=part.dtype)])
            for part in sequences
        ]
    )
