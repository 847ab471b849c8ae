"""Recorded sample orders against the reconstructed ones."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from densekit.batching.order import (
    OfficialOrder,
    length_grouped_indices,
    modality_grouped_indices,
    split_to_even_chunks,
)
from densekit.batching.rng import TorchGenerator
from densekit.data.annotations import Annotations
from densekit.errors import UsageError
from densekit.files.json_files import read_json
from densekit.parity.compare import Quantities
from densekit.spec.math import Reference
from densekit.text.lengths import modality_length

WORDS_OF_AN_IMAGE = 128
"""What the official `lengths` count an image as."""


def check_sampler(root: Path, quantities: Quantities) -> None:
    """Every case of sampler/sampler.json, the even chunks, and the lengths of
    data/stage2_train.json.

    A case that carries the official code's `error` holds when densekit refuses its input.
    """
    recorded = read_json(root / "sampler" / "sampler.json")
    for number, case in enumerate(recorded["cases"]):
        name = f"sampler.json: cases[{number}] ({case.get('name', 'no name')})"
        order = quantities.refused(name, case.get("error"), partial(_order, case))
        if order is not None:
            quantities.close("order", np.array(order), np.array(case["order"]), 0.0)
    for number, case in enumerate(recorded["split_to_even_chunks"]):
        name = f"sampler.json: split_to_even_chunks[{number}]"
        chunks = quantities.refused(name, case.get("error"), partial(_chunks, case))
        if chunks is not None:
            quantities.exact("even_chunks", chunks, case["chunks"])
    samples = Annotations.load(root / "data" / "stage2_train.json")
    lengths = [
        modality_length(sample.conversations, sample.image is not None) for sample in samples
    ]
    quantities.exact("modality_lengths", lengths, recorded["stage2_train_modality_lengths"])
    totals = [abs(words) + WORDS_OF_AN_IMAGE * (words > 0) for words in lengths]
    quantities.exact("lengths", totals, recorded["stage2_train_lengths"])


def _topology(*, devices: int, batch_size: int = 1) -> Reference:
    """Checks what a case asks for, as every run does; UsageError for a number below 1."""
    try:
        return Reference(gpus=devices, per_device_batch_size=batch_size, grad_accum_steps=1)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(f"reference topology: {field}: {first['msg']}") from None


def _order(case: dict[str, Any]) -> list[int]:
    topology = _topology(devices=case["world_size"], batch_size=case["batch_size"])
    if case.get("error"):
        # A run asks OfficialOrder, which checks more than the two functions below.
        order = OfficialOrder(
            modality_lengths=np.asarray(case["lengths"]),
            topology=topology,
            seed=case["seed"],
            group_by_modality=case["group_by_modality"],
        )
        return list(order.epoch(0).tolist())
    arguments = (case["lengths"], topology.per_device_batch_size, topology.gpus)
    shared = TorchGenerator(case["seed"])
    own = None if case["generator_seed"] is None else TorchGenerator(case["generator_seed"])
    if case["group_by_modality"]:
        return modality_grouped_indices(*arguments, global_generator=shared, generator=own)
    return length_grouped_indices(*arguments, generator=own or shared)


def _chunks(case: dict[str, Any]) -> list[list[int]]:
    devices = _topology(devices=case["num_chunks"]).gpus
    return split_to_even_chunks(case["indices"], case["lengths"], devices)
