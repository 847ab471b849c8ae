"""Recorded sample orders against the reconstructed ones."""

from pathlib import Path

import numpy as np

from densekit.batching.order import (
    length_grouped_indices,
    modality_grouped_indices,
    split_to_even_chunks,
)
from densekit.batching.rng import TorchGenerator
from densekit.data.annotations import Annotations
from densekit.files.json_files import read_json
from densekit.parity.compare import Quantities
from densekit.text.lengths import modality_length


def check_sampler(root: Path, quantities: Quantities) -> None:
    """Every case of sampler/sampler.json, the even chunks, and the lengths of
    data/stage2_train.json.
    """
    recorded = read_json(root / "sampler" / "sampler.json")
    for case in recorded["cases"]:
        shared = TorchGenerator(case["seed"])
        own = None if case["generator_seed"] is None else TorchGenerator(case["generator_seed"])
        arguments = (case["lengths"], case["batch_size"], case["world_size"])
        if case["group_by_modality"]:
            order = modality_grouped_indices(*arguments, global_generator=shared, generator=own)
        else:
            order = length_grouped_indices(*arguments, generator=own or shared)
        quantities.close("order", np.array(order), np.array(case["order"]), 0.0)
    for case in recorded["split_to_even_chunks"]:
        chunks = split_to_even_chunks(case["indices"], case["lengths"], case["num_chunks"])
        quantities.exact("even_chunks", chunks, case["chunks"])
    train = root / "data" / "stage2_train.json"
    samples = Annotations.load(train)
    lengths = [
        modality_length(sample.conversations, sample.image is not None) for sample in samples
    ]
    quantities.exact("modality_lengths", lengths, recorded["stage2_train_modality_lengths"])
    totals = [
        abs(words) + 128 * (words > 0) for words in lengths
    ]  # `lengths` counts an image as 128 words
    quantities.exact("lengths", totals, recorded["stage2_train_lengths"])
