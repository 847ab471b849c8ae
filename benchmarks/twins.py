"""The same SCI model twice, in densekit and in transformers' Llava, over the same weights and the
same samples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from densekit.data.pixels import ReadImage
from densekit.model.config import DenseConnectorConfig
from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import pixel_values
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.connector import Connector
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.spec.vision import ImageLayout
from densekit.text.sequence import ModelSequence
from densekit.train.collate import WeightedSample, pack


@dataclass(frozen=True, kw_only=True)
class Size:
    """Shapes of one model; the vocabulary keeps lm_head near the 2 % of the language model that it
    is at 7B.
    """

    hidden: int
    mlp: int
    blocks: int
    heads: int
    vocabulary: int
    tower_hidden: int
    tower_mlp: int
    tower_blocks: int
    tower_heads: int
    image_size: int
    layers: tuple[int, ...]
    batch: int
    patch: int = 14

    @property
    def image_tokens(self) -> int:
        """Feature tokens of an image."""
        return (self.image_size // self.patch) ** 2


SIZES = {
    "tiny": Size(
        hidden=64,
        mlp=176,
        blocks=2,
        heads=4,
        vocabulary=128,
        tower_hidden=32,
        tower_mlp=128,
        tower_blocks=4,
        tower_heads=2,
        image_size=56,
        layers=(1, 2),
        batch=4,
    ),
    "small": Size(
        hidden=256,
        mlp=688,
        blocks=6,
        heads=4,
        vocabulary=256,
        tower_hidden=96,
        tower_mlp=384,
        tower_blocks=8,
        tower_heads=2,
        image_size=168,
        layers=(2, 5),
        batch=8,
    ),
    "7b": Size(
        hidden=4096,
        mlp=11008,
        blocks=32,
        heads=32,
        vocabulary=32000,
        tower_hidden=1024,
        tower_mlp=4096,
        tower_blocks=24,
        tower_heads=16,
        image_size=336,
        layers=(7, 15),
        batch=4,
    ),
}


def make_models(
    size: Size, device: torch.device, dtype: torch.dtype
) -> tuple[DenseConnectorForConditionalGeneration, LlavaForConditionalGeneration]:
    """The two models over the same weight tensors."""
    vision = CLIPVisionConfig(
        hidden_size=size.tower_hidden,
        intermediate_size=size.tower_mlp,
        num_hidden_layers=size.tower_blocks,
        num_attention_heads=size.tower_heads,
        image_size=size.image_size,
        patch_size=size.patch,
    )
    text = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        vocab_size=size.vocabulary + 64,  # the id above the vocabulary is stock Llava's image token
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        vision_feature_layer=[size.tower_blocks - 1, *size.layers],
        image_token_index=size.vocabulary,
        image_seq_length=size.image_tokens,
        dtype=dtype,
    )
    torch.manual_seed(0)
    with torch.device(device):
        stock = LlavaForConditionalGeneration(config).to(dtype)  # type: ignore[arg-type]
    ours_config = DenseConnectorConfig(
        text_config=text,
        vision_config=vision,
        connector={"kind": "sci", "layers": list(size.layers)},
    )
    with torch.device(device):
        ours = DenseConnectorForConditionalGeneration(ours_config).to(dtype)  # type: ignore[arg-type]
    needed = ours.state_dict().keys()
    weights = {stock_to_ours(name): value for name, value in stock.state_dict().items()}
    ours.load_state_dict({name: weights[name] for name in needed}, assign=True)
    return ours, stock


def stock_to_ours(name: str) -> str:
    """densekit's name of a parameter of stock Llava."""
    for old, new in (
        ("model.vision_tower.", "vision_tower.model."),
        ("model.multi_modal_projector.linear_1.", "projector.0."),
        ("model.multi_modal_projector.linear_2.", "projector.2."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise KeyError(name)


def make_samples(size: Size, batch: int) -> tuple[list[ModelSequence], list[np.ndarray | None]]:
    """Random prompts and answers, 30 to 200 text tokens together; the last sample has no image."""
    random = np.random.default_rng(0)
    patches = size.image_tokens
    sequences: list[ModelSequence] = []
    images: list[np.ndarray | None] = []
    for number in range(batch):
        has_image = number == 0 or number < batch - 1
        length = int(random.integers(30, 201))
        answer = int(length * random.uniform(0.2, 0.7))
        ids = random.integers(1, size.vocabulary, length)
        labels = np.where(np.arange(length) >= length - answer, ids, IGNORE_INDEX)
        if has_image:
            at = min(4, length - answer)  # behind a few tokens of the prompt
            ids = np.concatenate([ids[:at], np.full(patches, IMAGE_TOKEN_ID), ids[at:]])
            labels = np.concatenate([labels[:at], np.full(patches, IGNORE_INDEX), labels[at:]])
        sequences.append(ModelSequence(ids, labels))
        shape = (3, size.image_size, size.image_size)
        images.append(random.integers(0, 256, shape, dtype=np.uint8) if has_image else None)
    return sequences, images


def our_inputs(
    sequences: list[ModelSequence],
    images: list[np.ndarray | None],
    size: Size,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[MicroBatch, Tensor]:
    """Micro-batch and normalised images, every label weighing 1 / their number, as stock Llava's
    mean does.
    """
    labels = sum(int((sequence.labels[1:] != IGNORE_INDEX).sum()) for sequence in sequences)
    samples = [
        WeightedSample(
            sequence=sequence,
            image=None if pixels is None else ReadImage(pixels=pixels, size=(1, 1), digest=""),
            weight=1 / labels,
            position=number,
            sample_id=str(number),
        )
        for number, (sequence, pixels) in enumerate(zip(sequences, images, strict=True))
    ]
    micro_batch = pack(
        samples,
        layout=ImageLayout(patches=size.image_tokens, connector=Connector(kind="none")),
        image_size=size.image_size,
    ).to(device)
    table = (
        ((torch.arange(256, dtype=torch.float32) / 255 - 0.45) / 0.27)[:, None]
        .expand(256, 3)
        .contiguous()
    )
    return micro_batch, pixel_values(micro_batch.pixels, table.to(device)).to(dtype)


def stock_inputs(sequences: list[ModelSequence], pixels: Tensor, size: Size) -> dict[str, Any]:
    """The same samples as a right-padded batch."""
    longest = max(len(sequence.input_ids) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
    for number, sequence in enumerate(sequences):
        length = len(sequence.input_ids)
        known = np.where(sequence.input_ids == IMAGE_TOKEN_ID, size.vocabulary, sequence.input_ids)
        ids[number, :length] = torch.from_numpy(known)
        labels[number, :length] = torch.from_numpy(sequence.labels)
        mask[number, :length] = 1
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    found: dict[str, Any] = {name: value.to(pixels.device) for name, value in inputs.items()}
    if len(pixels):
        found["pixel_values"] = pixels
    return {**found, "use_cache": False}


def stock_inputs_alone(
    sequences: list[ModelSequence],
    images: list[np.ndarray | None],
    pixels: Tensor,
    size: Size,
) -> list[tuple[dict[str, Any], float]]:
    """The same samples one by one, each with its share of the batch's label positions."""
    counts = [int((sequence.labels[1:] != IGNORE_INDEX).sum()) for sequence in sequences]
    found, row = [], 0
    for sequence, image, count in zip(sequences, images, counts, strict=True):
        rows = pixels[row : row + (image is not None)]
        row += image is not None
        found.append((stock_inputs([sequence], rows, size), count / sum(counts)))
    return found


def stock_inputs_padding_free(
    sequences: list[ModelSequence], pixels: Tensor, size: Size, *, flash: bool
) -> dict[str, Any]:
    """The same samples end to end in one row, told apart by positions that begin anew: for
    flash-attn with the boundaries at hand, else transformers makes a dense mask of them.
    """
    rows = [stock_inputs([sequence], pixels[:0], size) for sequence in sequences]
    ids = torch.cat([row["input_ids"] for row in rows], dim=1)
    labels = torch.cat([row["labels"] for row in rows], dim=1)
    lengths = [row["input_ids"].shape[1] for row in rows]
    begins = torch.tensor([0, *lengths], device=ids.device).cumsum(0)
    labels[0, begins[:-1]] = IGNORE_INDEX  # no sample predicts the next one's first token
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    found: dict[str, Any] = {"input_ids": ids, "labels": labels, "position_ids": positions[None]}
    if flash:
        boundaries = begins.to(torch.int32)
        found |= {"cu_seq_lens_q": boundaries, "cu_seq_lens_k": boundaries}
        found |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    if len(pixels):
        found["pixel_values"] = pixels
    return {**found, "use_cache": False}
