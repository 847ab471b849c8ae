"""Recorded AnyRes: the arithmetic of tiles, their pixels, and one batch forward and backward."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json, read_object
from densekit.model.preprocess import pixel_values
from densekit.model.weights import read_weights
from densekit.parity.case import Recording, make_trainer, single_step
from densekit.parity.compare import GRADIENTS, LOGITS, LOSS, NORMS, Quantities
from densekit.parity.computed import gradient, normalised_pixels, pad, run_everywhere
from densekit.spec.anyres import AnyRes, unpadded
from densekit.spec.types import IGNORE_INDEX

HELPERS = "helpers.json"
TILE = 56
ARGUMENTS = {
    "model_name_or_path": "models/llm_tiny",
    "vision_tower": "models/clip_tiny",
    "data_path": "data/stage2_batch.json",
    "image_folder": "data/images",
    "image_aspect_ratio": "anyres",
    "version": "v1",
    "model_max_length": "2048",
    "per_device_train_batch_size": "4",
    "learning_rate": "1e-3",
    "max_steps": "1",
}


def check_helpers(path: Path, quantities: Quantities) -> None:
    """Which grid an image takes, what of it the image covers, and its resized and padded pixels."""
    record = read_object(path, "pinpoints", "grid", "unpad", "resize_and_pad")
    layouts = {
        name: AnyRes.model_validate({"pinpoints": sizes, "merge": "spatial_unpad"})
        for name, sizes in record["pinpoints"].items()
    }
    for entry in record["grid"]:
        layout, size = layouts[entry["pinpoints"]], _size(entry["size"])
        quantities.exact("best_resolution", list(layout.chosen(size)), entry["best"])
        quantities.exact("grid", list(layout.grid(size, entry["patch_size"])), entry["grid"])
    for entry in record["unpad"]:
        height, width = entry["cur"]
        top, bottom, left, right = unpadded(_size(entry["size"]), width, height)
        quantities.exact("unpad", [bottom - top, right - left], entry["out"])
        if entry["first"] is not None:
            ends = [top * width + left, (bottom - 1) * width + right - 1]
            quantities.exact("unpad", ends, [entry["first"], entry["last"]])
    _check_pixels(record["resize_and_pad"], layouts["tiny56"], quantities)


def _check_pixels(recorded: list[dict[str, Any]], layout: AnyRes, quantities: Quantities) -> None:
    generator = np.random.default_rng(3)
    processor = ImageProcessor(
        resize="shortest_edge",
        size=TILE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        aspect_ratio="anyres",
        anyres=layout,
    )
    for entry in recorded:
        width, height = size = _size(entry["size"])
        drawn = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        across, down = layout.chosen(size)
        quantities.exact("best_resolution", [across, down], entry["best"])
        tiles = processor(Image.fromarray(drawn))[1:].astype(np.int64)
        quantities.exact("tiles", len(tiles), entry["n_patches"])
        rows, columns = down // TILE, across // TILE
        # [rows * columns, 3, S, S] -> [rows * S, columns * S, 3]
        grid = tiles.reshape(rows, columns, 3, TILE, TILE).transpose(0, 3, 1, 4, 2)
        whole = grid.reshape(down, across, 3)
        quantities.exact("pixels", int(whole.sum()), entry["sum"])
        quantities.exact("pixels", whole.sum((1, 2)).tolist(), entry["row_sums"])
        quantities.exact("pixels", whole.sum((0, 2)).tolist(), entry["col_sums"])
        quantities.exact("pixels", tiles.sum((1, 2, 3)).tolist(), entry["patch_sums"])


def check_forward(root: Path, stem: str, quantities: Quantities) -> None:
    """One connector and merge type: ids, tokens after the merge, pixels, logits, loss and
    gradients; or that it is refused, where the official code stopped.
    """
    folder = root / "anyres"
    connector, merge = stem.removeprefix("forward_").split("_", 1)
    pinpoints = read_json(folder / HELPERS)["pinpoints"]["tiny56"]
    recording = Recording(
        root,
        {},
        {
            **ARGUMENTS,
            "mm_dense_connector_type": connector,
            "mm_patch_merge_type": merge,
            "image_grid_pinpoints": str(pinpoints),
        },
    )
    failed = folder / f"{stem}.error.json"
    if failed.is_file():
        quantities.refused(stem, read_json(failed)["error"], lambda: _refusing(recording))
        return
    weights = read_weights(folder / f"{stem}.safetensors")
    init = {
        name.replace("projector.", "connector.", 1): value
        for name, value in weights.items()
        if name.startswith("projector.")
    }
    if "image_newline" in weights:
        init["image_newline.weight"] = weights["image_newline"]
    model = recording.model(init)
    reader = recording.reader(Path(recording.math.data.annotations), model)
    arrays = dict(np.load(folder / f"{stem}.npz"))
    samples = range(len(reader.samples))
    trainer = make_trainer(model, reader, single_step(samples), recording.math)
    (micro_batch,) = (batch := next(trainer.batches())).micro_batches
    encoded = [reader.encode(index) for index in samples]
    ids = pad([each.input_ids for each in encoded], reader.encoder.pad_id)
    quantities.close("input_ids", ids, arrays["input_ids"], 0.0)
    sequences = [reader.sequence(index)[0] for index in samples]
    labels = pad([each.labels for each in sequences], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["mm_labels"], 0.0)
    for index, (image, views, size) in enumerate(
        zip(map(reader.image, samples), arrays["n_tiles"], arrays["image_sizes"], strict=True)
    ):
        if image is not None:
            quantities.exact(
                "tiles", [len(image.pixels), *image.size], [int(views), *size.tolist()]
            )
        if f"pixel{index}" in arrays:
            found = normalised_pixels(reader, index)
            quantities.close("pixels", found, arrays[f"pixel{index}"], 0.0)
    embeddings, logits = run_everywhere(
        model, micro_batch, pixel_values(micro_batch.pixels, trainer.lookup_table)
    )
    starts = micro_batch.cu_seqlens.tolist()
    spans = itertools.pairwise(starts)
    norms = pad([embeddings[a:b].norm(dim=-1).numpy() for a, b in spans], 0)
    valid = arrays["mm_attention_mask"]
    quantities.each_relative(
        "input_embeddings", norms * valid, arrays["embeds_token_l2"] * valid, NORMS
    )
    at = torch.tensor([starts[row] + place for row, place in arrays["positions"].tolist()])
    columns = torch.from_numpy(arrays["vocab_cols"])
    quantities.close("logits", logits[at][:, columns], arrays["logits_cols"], LOGITS)
    quantities.close("loss", trainer.accumulate(batch).item(), arrays["loss"], LOSS)
    ours = {f"grad.{name}": gradient(p) for name, p in model.projector.named_parameters()}
    if model.image_newline is not None:
        ours["grad.image_newline"] = gradient(model.image_newline.weight)
    recorded = {name: value for name, value in weights.items() if name.startswith("grad.")}
    quantities.exact("gradient_names", sorted(ours), sorted(recorded))
    for name, value in recorded.items():
        quantities.relative("gradients", ours[name], value, GRADIENTS)


def _refusing(recording: Recording) -> None:
    try:
        recording.model()
    except (DataError, UsageError):
        raise
    except ValueError as error:
        raise DataError(str(error)) from None


def _size(value: list[int]) -> tuple[int, int]:
    width, height = value
    return width, height
