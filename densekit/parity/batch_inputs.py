"""What goes into the language model for the recorded batch: ids, labels, pixels and features."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.model.config import read_config
from densekit.model.towers import load_tower, vision_config_of
from densekit.model.towers.base import VisionTower
from densekit.parity.case import Recording
from densekit.parity.compare import (
    FEATURES,
    NORMS,
    STATISTICS,
    Quantities,
    compare_statistics,
)
from densekit.parity.computed import normalised_pixels, pad
from densekit.spec.connector import high_level_layer
from densekit.spec.types import IGNORE_INDEX
from densekit.text.encode import SampleEncoder
from densekit.train.step_dataset import SampleReader


def check_tokens(
    reader: SampleReader,
    recording: Recording,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """Ids and labels of every sample before collation, of the padded batch, and after the image
    took its place.
    """
    limit = reader.encoder.max_length
    encoded = [reader.encode(index) for index in range(len(reader.samples))]
    if isinstance(reader.encoder, SampleEncoder):
        for index, sample in enumerate(encoded):
            quantities.close("input_ids", sample.input_ids, arrays[f"sample{index}/input_ids"], 0.0)
            quantities.close("labels", sample.labels, arrays[f"sample{index}/labels"], 0.0)
    ids = pad([sample.input_ids[:limit] for sample in encoded], reader.encoder.pad_id)
    quantities.close("input_ids", ids, arrays["batch/input_ids"], 0.0)
    quantities.close("input_ids", ids != reader.encoder.pad_id, arrays["batch/attention_mask"], 0.0)
    labels = pad([sample.labels[:limit] for sample in encoded], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["batch/labels"], 0.0)
    sequences = [reader.sequence(index)[0] for index in range(len(reader.samples))]
    quantities.close(
        "labels", pad([s.labels for s in sequences], IGNORE_INDEX), arrays["mm/labels"], 0.0
    )
    lengths = pad([np.ones(len(s.labels)) for s in sequences], 0)
    quantities.close("labels", lengths, arrays["mm/attention_mask"], 0.0)
    quantities.exact("labels", [len(s.labels) for s in sequences], recording.record["n_valid"])
    quantities.exact("labels", [s.label_count for s in sequences], recording.record["n_supervised"])


def check_pixels(
    reader: SampleReader, arrays: dict[str, np.ndarray], quantities: Quantities
) -> Tensor:
    """Pixels and their statistics; returns densekit's own, [B, 3, S, S]."""
    pixels = torch.cat([normalised_pixels(reader, index) for index in range(len(reader.samples))])
    if "batch/pixel_values" in arrays:
        quantities.close("pixels", pixels, arrays["batch/pixel_values"], 0.0)
    else:
        quantities.close(
            "pixels", pixels[:, :, 5::16, 7::16], arrays["batch/pixel_values_s16"], 0.0
        )
    wide = pixels.double().flatten(2)
    quantities.close("pixel_statistics", wide.mean(-1), arrays["batch/pixel_values_mean64"], 1e-12)
    quantities.close("pixel_statistics", wide.std(-1), arrays["batch/pixel_values_std64"], 1e-12)
    return pixels


def check_vision(
    recording: Recording,
    model: Any,
    pixels: Tensor,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """Hidden states of the tower, the connector's input and its output."""
    vision = recording.record["vision"]
    with torch.no_grad():
        dense = model.encode_images(pixels)
        projected = model.projector(dense)
        tower_layers = vision_config_of(model.config.vision_config).num_hidden_layers
        states = list(_full_tower(recording, vision["n_hidden_states"] - 1).states_with_cls(pixels))
    has_cls = model.vision_tower.has_cls
    selected = states[high_level_layer(tower_layers)]
    selected = selected[:, 1:] if has_cls else selected
    tokens = arrays["vision/feat_patch_index"]
    patches = [token for token in tokens if token < selected.shape[1]]
    quantities.close("dense_features", selected[:, patches], arrays["vision/selected"], FEATURES)
    for name, found, quantity in (
        ("dense", dense, "dense_features"),
        ("proj", projected, "projector_output"),
    ):
        long_name = {"dense": "dense_features", "proj": "projector_out"}[name]
        quantities.close(quantity, found[:, tokens], arrays[f"vision/{long_name}"], FEATURES)
        norms = arrays[f"vision/{long_name}_token_l2"]
        quantities.each_relative(f"{quantity}_norms", found.norm(dim=-1), norms, NORMS)
        compare_statistics(quantities, f"{quantity}_statistics", found, vision[name], STATISTICS)
        quantities.exact(f"{quantity}_shape", list(found.shape), vision[f"{name}_shape"])
    quantities.exact("hidden_states_shape", list(states[0].shape), vision["hidden_shape"])
    quantities.exact("hidden_states_shape", list(selected.shape), vision["selected_shape"])
    state_norms = [state.double().norm().item() for state in states]
    quantities.each_relative("hidden_states_norms", state_norms, vision["hidden_state_l2"], NORMS)


def _full_tower(recording: Recording, last_layer: int) -> VisionTower:
    folder = Path(recording.math.models.vision_tower)
    config = vision_config_of(read_config(folder, "vision tower"))
    return load_tower(folder, config, last_layer, torch.float32)
