"""What comes out for the recorded batch: logits, loss, gradients, and the optimizer's groups."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import pixel_values
from densekit.parity.case import Recording, make_trainer, single_step
from densekit.parity.compare import (
    GRADIENTS,
    LOGITS,
    LOSS,
    NORMS,
    STATISTICS,
    Quantities,
    compare_statistics,
)
from densekit.parity.computed import gradient, pad, run_everywhere, trainable_parameters
from densekit.parity.names import by_official_name, official_names
from densekit.spec.types import IGNORE_INDEX
from densekit.train.optim import trainable
from densekit.train.step_dataset import SampleReader
from densekit.train.trainer import Trainer


def check_outputs(
    recording: Recording,
    model: Any,
    reader: SampleReader,
    arrays: Mapping[str, np.ndarray],
    full_gradients: dict[str, Tensor],
    quantities: Quantities,
) -> None:
    """Everything recorded of the batch's forward and backward pass; `arrays` may be empty."""
    record = recording.record
    trainer = make_trainer(model, reader, single_step(range(len(reader.samples))), recording.math)
    batch = next(trainer.batches())
    (micro_batch,) = batch.micro_batches
    if arrays:
        images = pixel_values(micro_batch.pixels, trainer.lookup_table)
        check_logits(model, micro_batch, images, arrays, quantities)
    loss = trainer.accumulate(batch).item()
    for name in ("loss", "loss_f64_from_logits"):
        if name in record:
            quantities.close("loss", loss, record[name], LOSS)
    check_trainable(model, record, quantities)
    check_gradients(model, record, by_official_name(full_gradients), quantities)
    if "param_groups" in record:
        _check_groups(trainer, record, quantities)


def check_trainable(model: Any, record: dict[str, Any], quantities: Quantities) -> None:
    """Names of the trainable parameters, whoever's names they are recorded under."""
    ours = sorted(trainable_parameters(model))
    for name in ("trainable", "grad"):
        if name in record:
            quantities.exact("trainable", ours, official_names(record[name]))


def check_gradients(
    model: Any,
    record: dict[str, Any],
    full_gradients: dict[str, Tensor],
    quantities: Quantities,
    *,
    tolerance: float = GRADIENTS,
    statistics_tolerance: float = STATISTICS,
) -> None:
    """Gradients, whole and by their statistics, by official name."""
    gradients = {name: gradient(value) for name, value in trainable_parameters(model).items()}
    for name, recorded in full_gradients.items():
        quantities.relative("gradients", gradients[name], recorded, tolerance)
    for name, statistics in by_official_name(record.get("grad", {})).items():
        compare_statistics(
            quantities, "gradient_statistics", gradients[name], statistics, statistics_tolerance
        )
    if "grad_total_l2" in record:
        norms = torch.stack([value.double().norm() for value in gradients.values()])
        total = torch.linalg.vector_norm(norms).item()
        quantities.relative("gradients", total, record["grad_total_l2"], GRADIENTS)


def check_logits(
    model: Any,
    micro_batch: MicroBatch,
    images: Tensor,
    arrays: Mapping[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """Embeddings and logits at every valid position of the recorded (padded) batch."""
    embeddings, logits = run_everywhere(model, micro_batch, images)
    starts = micro_batch.cu_seqlens.tolist()
    spans = list(itertools.pairwise(starts))
    norms = pad([embeddings[a:b].norm(dim=-1).numpy() for a, b in spans], 0.0)
    valid = arrays["mm/attention_mask"]
    quantities.each_relative(
        "input_embeddings", norms * valid, arrays["mm/inputs_embeds_token_l2"] * valid, NORMS
    )

    at = torch.tensor([starts[b] + t for b, t in arrays["out/positions"].tolist()])
    columns = torch.from_numpy(arrays["out/vocab_cols"])
    quantities.close("logits", logits[at][:, columns], arrays["out/logits_cols"], LOGITS)
    logsumexp = logits.logsumexp(-1).numpy()
    quantities.close(
        "logits", pad([logsumexp[a:b] for a, b in spans], 0.0), arrays["out/logsumexp"], LOGITS
    )
    best = logits.argmax(-1).numpy()
    quantities.close("argmax", pad([best[a:b] for a, b in spans], -1), arrays["out/argmax"], 0.0)
    if "out/full_row" in arrays:
        row, position = arrays["out/full_row_pos"].tolist()
        quantities.close("logits", logits[starts[row] + position], arrays["out/full_row"], LOGITS)
    _check_token_losses(logits, spans, arrays, quantities)


def _check_token_losses(
    logits: Tensor,
    spans: list[tuple[int, int]],
    arrays: Mapping[str, np.ndarray],
    quantities: Quantities,
) -> None:
    labels = arrays["mm/labels"]
    ours = np.zeros(arrays["out/token_ce"].shape)
    for row, (start, end) in enumerate(spans):
        targets = torch.from_numpy(labels[row, 1 : end - start])
        losses = torch.nn.functional.cross_entropy(
            logits[start : end - 1], targets, reduction="none", ignore_index=IGNORE_INDEX
        )
        ours[row, : end - start - 1] = losses.numpy()
    quantities.close("token_losses", ours, arrays["out/token_ce"], LOGITS)


def _check_groups(trainer: Trainer, record: dict[str, Any], quantities: Quantities) -> None:
    """The optimizer's settings, and how many parameters fall under each rate with and without
    weight decay.
    """
    for recorded in record["param_groups"]:
        for group in trainer.engine.optimizer.param_groups:
            quantities.close("optimizer", group["weight_decay"], recorded["weight_decay"], 0.0)
            quantities.close("optimizer", group["betas"], recorded["betas"], 0.0)
            quantities.close("optimizer", group["eps"], recorded["eps"], 0.0)
    counts: dict[tuple[float, bool], list[int]] = {}
    for parameter, rate, decay in trainable(trainer.engine.model, trainer.optimizer_config):
        count = counts.setdefault((rate, decay), [0, 0])
        count[0] += 1
        count[1] += parameter.numel()
    ours = sorted((rate, *count) for (rate, _), count in counts.items())
    theirs = sorted(
        (g["lr0"], g["n_params"], g["numel"]) for g in record["param_groups"] if g["n_params"]
    )
    quantities.exact("optimizer", ours, theirs)
