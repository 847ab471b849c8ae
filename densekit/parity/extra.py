"""The recordings under extra/: preprocessing of single images, padding and generation probes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.batching.steps import Step
from densekit.data.pixels import ImageProcessor, open_image
from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.model.config import read_config
from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import normalise, pixel_values
from densekit.model.towers import num_patches
from densekit.model.weights import read_weights
from densekit.parity.case import Recording, make_trainer, normalised_pixels, run_everywhere
from densekit.parity.compare import FEATURES, LOGITS, LOSS, Quantities
from densekit.parity.stage import pad
from densekit.parity.tokens import user_text
from densekit.spec.types import IGNORE_INDEX
from densekit.text.encode import SampleEncoder
from densekit.train.step_dataset import SampleReader

ONE_PIXEL_STEP = {
    "shortest_edge": (0, 0, 5),
    "squash": (5, 7, 37),
}  # first row, first column, stride of a recording


def check_image_preprocess(root: Path, quantities: Quantities) -> None:
    """Images under both aspect ratios and both towers: (sub-sampled) pixels, mean and standard
    deviation.
    """
    recorded = np.load(root / "extra" / "image_preprocess.npz")
    for key in recorded.files:
        tower, aspect, number, kind = key.split("_", 3)
        folder = root / "models" / f"{tower}_tiny"
        processor = ImageProcessor.from_pretrained(folder, "pad" if aspect == "pad" else "square")
        raw = processor(open_image(root / "data" / "images" / f"img{number}.png"))
        pixels = normalise(torch.from_numpy(raw)[None], torch.from_numpy(processor.lookup_table()))[
            0
        ]
        if kind == "mean_std":
            wide = pixels.double().flatten(1)
            quantities.close(
                "pixel_statistics", torch.stack([wide.mean(-1), wide.std(-1)]), recorded[key], 1e-12
            )
            continue
        if recorded[key].shape != tuple(pixels.shape):
            row, column, stride = ONE_PIXEL_STEP[processor.resize]
            pixels = pixels[:, row::stride, column::stride]
        quantities.close("pixels", pixels, recorded[key], 0.0)


def check_batch_extra(root: Path, path: Path, quantities: Quantities) -> None:
    """`<case>_extra`: both attention paths, left padding and greedy generation on the case after
    stage 1.
    """
    record = read_json(path)
    arrays = dict(np.load(path.with_suffix(".npz")))
    folder = root / path.stem.removesuffix("_extra")
    recording = Recording.read(root, folder / "stage2.json")
    projector = read_weights(folder / "projector_after_stage1.safetensors")
    model = recording.model({f"connector.{name}": value for name, value in projector.items()})
    reader = recording.reader(root / "data" / "stage2_batch.json", model)
    chosen = _chosen_samples(reader, arrays["input_ids"])
    trainer = make_trainer(
        model, reader, [Step(index=0, groups=[np.array(chosen)], num_groups=1)], recording.math
    )
    (micro_batch,) = (batch := next(trainer.batches())).micro_batches
    images = pixel_values(micro_batch.pixels, trainer.lookup_table)
    loss = trainer.accumulate(batch).item()
    for recorded in (*record["sdpa_vs_eager"]["loss"], record["left_pad"]["loss"]):
        quantities.close("loss", loss, recorded, LOSS)
    for name in ("max_abs_valid", "max_abs_padded"):
        quantities.close("sdpa_against_eager", record["sdpa_vs_eager"][name], 0.0, LOGITS)
    _check_padding(reader, chosen, model, micro_batch, images, arrays, quantities)
    for prompt in record["generate"]:
        quantities.exact(
            "generated_ids",
            _generate(model, prompt, arrays["pixel_values"]),
            prompt["output_ids"][1:],
        )
    if isinstance(reader.encoder, SampleEncoder):
        for prompt in record["generate"]:
            turn = {"from": "human", "value": user_text(prompt["prompt"], reader.encoder)}
            ids = reader.encoder.encode_prompt([turn], has_image=True)
            quantities.close("prompt_ids", ids, np.array(prompt["input_ids"]), 0.0)


def _chosen_samples(reader: SampleReader, recorded_ids: np.ndarray) -> list[int]:
    """Which samples of the batch file the recorded rows are; DataError when a row is none of them."""
    encoded = [reader.encode(index).input_ids.tolist() for index in range(len(reader.samples))]
    rows = [row[row != reader.encoder.pad_id].tolist() for row in recorded_ids]
    unknown = [number for number, row in enumerate(rows) if row not in encoded]
    if unknown:
        raise DataError(f"recorded rows {unknown} are not the ids of any sample of the batch file")
    return [encoded.index(row) for row in rows]


def _check_padding(
    reader: SampleReader,
    chosen: list[int],
    model: Any,
    micro_batch: MicroBatch,
    images: Tensor,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    encoded = [reader.encode(index) for index in chosen]
    ids = pad([sample.input_ids for sample in encoded], reader.encoder.pad_id)
    quantities.close("input_ids", ids, arrays["input_ids"], 0.0)
    quantities.close("input_ids", ids != reader.encoder.pad_id, arrays["attention_mask"], 0.0)
    labels = pad([sample.labels for sample in encoded], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["labels"], 0.0)
    pixels = [normalised_pixels(reader, index) for index in chosen]
    quantities.close("pixels", torch.cat(pixels), arrays["pixel_values"], 0.0)

    embedded, logits = run_everywhere(model, micro_batch, images)
    embeddings = embedded.norm(dim=-1).numpy()
    quantities.close(
        "logits", logits[:, torch.from_numpy(arrays["vocab_cols"])], arrays["logits_cols"], LOGITS
    )
    spans = list(itertools.pairwise(micro_batch.cu_seqlens.tolist()))
    sequences = [reader.sequence(index)[0] for index in chosen]
    left: dict[str, list[np.ndarray]] = {
        "left_attention_mask": [np.ones(b - a) for a, b in spans],
        "left_position_ids_when_given": [np.arange(b - a) for a, b in spans],
        "left_embeds_l2": [embeddings[a:b] for a, b in spans],
    }
    for name, rows in left.items():
        quantities.close("left_padding", _pad_left(rows, 0), arrays[name], FEATURES)
    left_labels = _pad_left([sequence.labels for sequence in sequences], IGNORE_INDEX)
    quantities.close("labels", left_labels, arrays["left_labels"], 0.0)


def _pad_left(rows: list[np.ndarray], value: float) -> np.ndarray:
    return pad([row[::-1] for row in rows], value)[:, ::-1]


def _generate(model: Any, prompt: dict[str, Any], pixel_values: np.ndarray) -> list[int]:
    pixels = torch.from_numpy(pixel_values[prompt["image_index"]])[None]
    model.eval()
    length = len(prompt["output_ids"]) - 1
    ids = model.generate(
        [torch.tensor(prompt["input_ids"])],
        pixels,
        max_new_tokens=length,
        do_sample=False,
        pad_token_id=0,
    )
    return list(ids[0].tolist())


def check_probes(root: Path, quantities: Quantities) -> None:
    """Defects and invariants the official code was probed for; those densekit mends must still be
    on record.
    """
    record = read_json(root / "extra" / "probes.json")
    off, on = record["gradient_checkpointing_off_on"]
    quantities.close("gradient_checkpointing", on, off, 0.0)
    quantities.exact(
        "all_masked_batch_loss", "nan", record["all_masked_batch_loss"]
    )  # ledger: densekit gives 0
    quantities.exact("vision_tower_requires_grad", False, record["vision_tower_requires_grad"])
    _check_shapes(root, record, quantities)
    quantities.close(
        "text_only_projector_gradient",
        [0.0] * 4,
        record["text_only_batch_projector_grad_zero_not_none"],
        0.0,
    )


def _check_shapes(root: Path, record: dict[str, Any], quantities: Quantities) -> None:
    """The probes' embeddings: two texts of two ids with an image each, and two video frames, on the
    tiny models.
    """
    tokens = num_patches(read_config(root / "models" / "clip_tiny", "vision tower"))
    hidden = read_config(root / "models" / "llm_tiny", "language model").hidden_size
    quantities.exact("shapes", [2, 2 + tokens, hidden], record["list_of_3d_images_flat"])
    quantities.exact("shapes", [1, 2 * tokens, hidden], record["is_video_nopool_shape"])
