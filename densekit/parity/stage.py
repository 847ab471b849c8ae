"""One recorded stage: the golden batch (tokens, pixels, features, logits, loss, gradients) and the
20-step curve.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.model.config import read_config
from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import pixel_values
from densekit.model.towers import load_tower, vision_config_of
from densekit.model.towers.base import VisionTower
from densekit.model.weights import read_weights
from densekit.parity.case import (
    Recording,
    make_trainer,
    normalised_pixels,
    run_everywhere,
    single_step,
    trainable_parameters,
)
from densekit.parity.compare import (
    CURVE,
    FEATURES,
    FINAL_WEIGHTS,
    GRADIENTS,
    LOGITS,
    LOSS,
    NORMS,
    ROUNDED_LOG,
    STATISTICS,
    Quantities,
    compare_statistics,
)
from densekit.runs.records import StepMetrics
from densekit.spec.connector import high_level_layer
from densekit.spec.types import IGNORE_INDEX
from densekit.text.encode import SampleEncoder
from densekit.train.optim import trainable
from densekit.train.step_dataset import SampleReader, label_count
from densekit.train.trainer import Trainer

GRAD_NORM = 1e-4  # relative


def check_stage(root: Path, folder: Path, stage: int, quantities: Quantities) -> None:
    """Everything recorded of one stage of one case folder."""
    recording = Recording.read(root, folder / f"stage{stage}.json")
    arrays = dict(np.load(folder / f"stage{stage}.npz"))
    start = folder / (
        "projector_init.safetensors" if stage == 1 else "projector_after_stage1.safetensors"
    )
    init = {f"connector.{name}": value for name, value in read_weights(start).items()}
    model = recording.model(init)
    reader = recording.reader(root / "data" / f"stage{stage}_batch.json", model)
    quantities.exact("settings", recording.stage, stage)
    _check_tokens(reader, recording, arrays, quantities)
    pixels = _check_pixels(reader, arrays, quantities)
    _check_vision(recording, model, pixels, arrays, quantities)
    _check_batch(
        recording,
        model,
        reader,
        arrays,
        read_weights(folder / f"stage{stage}_grads.safetensors"),
        quantities,
    )

    model = recording.model(init)
    reader = recording.reader(root / "data" / f"stage{stage}_train.json", model)
    check_curve(recording, model, reader, quantities)
    after = read_weights(folder / f"projector_after_stage{stage}.safetensors")
    check_weights("final_weights", dict(model.projector.state_dict()), after, quantities)


def _check_tokens(
    reader: SampleReader,
    recording: Recording,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
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
    quantities.exact(
        "labels", [label_count(s) for s in sequences], recording.record["n_supervised"]
    )


def pad(rows: list[np.ndarray], value: float) -> np.ndarray:
    """Rows of different length, right-padded: [B, longest]."""
    longest = max(len(row) for row in rows)
    return np.stack(
        [np.concatenate([row, np.full(longest - len(row), value, dtype=row.dtype)]) for row in rows]
    )


def _check_pixels(
    reader: SampleReader, arrays: dict[str, np.ndarray], quantities: Quantities
) -> Tensor:
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


def _check_vision(
    recording: Recording,
    model: Any,
    pixels: Tensor,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    vision = recording.record["vision"]
    with torch.no_grad():
        dense = model.encode_images(pixels)
        projected = model.projector(dense)
        high = high_level_layer(model.config.tower_layers)
        states = list(_full_tower(recording, vision["n_hidden_states"] - 1).states_with_cls(pixels))
    has_cls = model.vision_tower.has_cls
    selected = states[high][:, 1:] if has_cls else states[high]
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
    tower = recording.math.models.vision_tower
    config = vision_config_of(read_config(Path(tower), "vision tower"))
    return load_tower(Path(tower), config, last_layer, torch.float32)


def _check_batch(
    recording: Recording,
    model: Any,
    reader: SampleReader,
    arrays: dict[str, np.ndarray],
    full_gradients: dict[str, Tensor],
    quantities: Quantities,
) -> None:
    record = recording.record
    trainer = make_trainer(model, reader, single_step(len(reader.samples)), recording.math)
    batch = next(trainer.batches())
    (micro_batch,) = batch.micro_batches
    images = pixel_values(micro_batch.pixels, trainer.lookup_table)
    check_logits(model, micro_batch, images, arrays, quantities)
    loss = trainer.accumulate(batch)
    quantities.close("loss", loss.item(), record["loss"], LOSS)
    quantities.close("loss", loss.item(), record["loss_f64_from_logits"], LOSS)

    parameters = trainable_parameters(model)
    quantities.exact("trainable", sorted(parameters), sorted(record["trainable"]))
    gradients = {name: _gradient(parameter) for name, parameter in parameters.items()}
    for name, recorded in full_gradients.items():
        quantities.relative("gradients", gradients[name], recorded, GRADIENTS)
    quantities.exact("trainable", sorted(gradients), sorted(record["grad"]))
    for name, statistics in record["grad"].items():
        compare_statistics(
            quantities, "gradient_statistics", gradients[name], statistics, STATISTICS
        )
    total = torch.linalg.vector_norm(torch.stack([g.double().norm() for g in gradients.values()]))
    quantities.relative("gradients", total.item(), record["grad_total_l2"], GRADIENTS)
    _check_groups(trainer, record, quantities)


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def check_logits(
    model: Any,
    micro_batch: MicroBatch,
    images: Tensor,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """Embeddings and logits at every valid position of the recorded (padded) batch."""
    embeddings, logits = run_everywhere(model, micro_batch, images)
    boundaries = micro_batch.cu_seqlens.tolist()
    spans = list(itertools.pairwise(boundaries))
    norms = pad([embeddings[a:b].norm(dim=-1).numpy() for a, b in spans], 0.0)
    valid = arrays["mm/attention_mask"]
    quantities.each_relative(
        "input_embeddings", norms * valid, arrays["mm/inputs_embeds_token_l2"] * valid, NORMS
    )

    at = torch.tensor([boundaries[b] + t for b, t in arrays["out/positions"].tolist()])
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
        quantities.close(
            "logits", logits[boundaries[row] + position], arrays["out/full_row"], LOGITS
        )
    _check_token_losses(logits, spans, arrays, quantities)


def _check_token_losses(
    logits: Tensor,
    spans: list[tuple[int, int]],
    arrays: dict[str, np.ndarray],
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
    """The optimiser's settings, and how many parameters fall under each rate with and without
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


def check_curve(
    recording: Recording, model: Any, reader: SampleReader, quantities: Quantities
) -> None:
    """Every recorded optimiser step: sample ids, loss, learning rate, gradient norm; then the final
    weights.
    """
    record = recording.record
    steps = recording.steps(reader.samples)  # type: ignore[arg-type]
    ids = [
        [str(reader.samples[int(i)].entry_id) for group in step.groups for i in group]
        for step in steps
    ]
    quantities.exact("order", ids, [step["ids"] for step in record["steps"]])
    if "order" in record:
        quantities.exact("order", ids, record["order"])
    trainer = make_trainer(model, reader, steps, recording.math)
    lines = []
    for batch in trainer.batches():
        trainer.check_feed(batch)
        lines.append(trainer.step(batch))
    for line, step in zip(lines, record["steps"], strict=True):
        quantities.close("curve_loss", _loss(line), step["loss"], CURVE)
        quantities.relative("curve_grad_norm", line.grad_norm, step["grad_norm_preclip"], GRAD_NORM)
    _check_log(trainer, lines, record, reader, quantities)
    parameters = trainable_parameters(model)
    if "final_params" in record:
        quantities.exact("trainable", sorted(parameters), sorted(record["final_params"]))
        for name, statistics in record["final_params"].items():
            compare_statistics(
                quantities, "final_statistics", parameters[name], statistics, FINAL_WEIGHTS
            )


def _loss(line: StepMetrics) -> float:
    return math.nan if line.loss is None else line.loss


def _check_log(
    trainer: Trainer,
    lines: list[StepMetrics],
    record: dict[str, Any],
    reader: SampleReader,
    quantities: Quantities,
) -> None:
    rounds = -(-len(reader.samples) // trainer.dataset.steps[0].groups[0].size)
    base = trainer.optimizer_config.learning_rate
    own = {group["base_lr"] for group in trainer.engine.optimizer.param_groups}
    for line, step in zip(lines, record["steps"], strict=True):
        ours = sorted({rate * line.lr / base for rate in own})
        quantities.close("curve_lr", ours, sorted(set(step["lr"])), 1e-12)
    logged = [entry for entry in record.get("log", []) if "loss" in entry]
    for entry in record.get("log", []):
        if "train_loss" in entry:
            quantities.close(
                "log", sum(_loss(line) for line in lines) / len(lines), entry["train_loss"], CURVE
            )
    for line, following, entry in zip(lines, [*lines[1:], None], logged, strict=False):
        quantities.close("log", _loss(line), entry["loss"], CURVE + ROUNDED_LOG)
        # The official log shows the rate of the next step.
        quantities.close("log", following.lr if following else 0.0, entry["learning_rate"], 1e-12)
        quantities.close("log_epoch", round(line.step / rounds, 2), entry["epoch"], 0.0)


def check_weights(
    name: str,
    ours: dict[str, Tensor],
    recorded: dict[str, Tensor],
    quantities: Quantities,
    *,
    tolerance: float = FINAL_WEIGHTS,
) -> None:
    """Weights after training, by name; relative to each tensor's size."""
    quantities.exact(f"{name}_names", sorted(ours), sorted(recorded))
    for key, value in recorded.items():
        quantities.relative(name, ours[key], value, tolerance)
