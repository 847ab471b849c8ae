"""What the official code was probed for, computed here on the same tiny models.

The probed batches are not on record, only what they showed; so densekit's own batches have to show
the same: data/stage2_batch.json through the recorded CLIP tower and language model, with a
connector drawn from the seed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.parity.case import Recording, make_trainer, single_step
from densekit.parity.compare import Quantities
from densekit.parity.computed import gradient, trainable_parameters

BATCH = "data/stage2_batch.json"
ARGUMENTS = {
    "model_name_or_path": "models/llm_tiny",
    "vision_tower": "models/clip_tiny",
    "mm_dense_connector_type": "dci",
    "data_path": BATCH,
    "image_folder": "data/images",
    "image_aspect_ratio": "pad",
    "version": "v1",
    "model_max_length": "128",
    "per_device_train_batch_size": "4",
    "learning_rate": "1e-3",
    "max_steps": "1",
}
NO_ANSWER = "8"
"""A length limit that ends every sample inside the system prompt, before its first answer."""


def check_probes(root: Path, quantities: Quantities) -> None:
    """Every probe whose outcome densekit shares, or mends by an entry of docs/upstream.md."""
    record = read_json(root / "extra" / "probes.json")
    probed = Recording(root, {}, ARGUMENTS)
    _check_activation_checkpointing(probed, record["gradient_checkpointing_off_on"], quantities)
    _check_batch_without_labels(probed, record["all_masked_batch_loss"], quantities)
    _check_text_only(probed, record["text_only_batch_projector_grad_zero_not_none"], quantities)
    model = probed.model()
    quantities.exact(
        "vision_tower_requires_grad",
        any(parameter.requires_grad for parameter in model.vision_tower.parameters()),
        record["vision_tower_requires_grad"],
    )
    _check_shapes(model, record, quantities)


def _check_activation_checkpointing(
    probed: Recording, recorded: list[list[float]], quantities: Quantities
) -> None:
    """By how much activation checkpointing changes the loss and the gradients: not at all."""
    losses, gradients = [], []
    for on in (False, True):
        model = probed.model()
        reader = probed.reader(probed.root / BATCH, model)
        steps = single_step(range(len(reader.samples)))
        trainer = make_trainer(model, reader, steps, probed.math, activation_checkpointing=on)
        calls = _count_calls(model.language_model.model.layers[0].mlp)
        losses.append(trainer.accumulate(next(trainer.batches())).item())
        if len(calls) != 1 + on:
            raise DataError(
                f"activation checkpointing {'on' if on else 'off'}: forward passes of the first"
                f" decoder layer in a step: {len(calls)}, expected {1 + on}"
            )
        parts = [gradient(value).flatten() for value in trainable_parameters(model).values()]
        gradients.append(torch.cat(parts))
    ours = [losses[1] - losses[0], (gradients[1] - gradients[0]).norm().item()]
    recorded_off, recorded_on = recorded
    difference = np.subtract(recorded_on, recorded_off)
    quantities.close("gradient_checkpointing", ours, difference, 0.0)


def _count_calls(module: torch.nn.Module) -> list[None]:
    """A list that grows by one whenever the module runs."""
    calls: list[None] = []
    module.register_forward_pre_hook(lambda *_: calls.append(None))
    return calls


def _check_batch_without_labels(probed: Recording, recorded: Any, quantities: Quantities) -> None:
    """The loss of a batch without any label: NaN officially, 0 here (docs/upstream.md, section 2:
    NaN from a micro-batch without labels).
    """
    short = replace(probed, arguments={**probed.arguments, "model_max_length": NO_ANSWER})
    model = short.model()
    reader = short.reader(short.root / BATCH, model)
    trainer = make_trainer(model, reader, single_step(range(len(reader.samples))), short.math)
    batch = next(trainer.batches())
    if batch.label_positions:
        raise DataError(f"{BATCH}: a sample has a label within {NO_ANSWER} tokens")
    loss = trainer.accumulate(batch).item()
    mended = 0.0 if recorded == "nan" else recorded
    quantities.close("all_masked_batch_loss", loss, mended, 0.0)


def _check_text_only(probed: Recording, recorded: list[float], quantities: Quantities) -> None:
    """The connector's gradients from a text-only micro-batch: zero, and not missing
    (docs/upstream.md, Q8).
    """
    model = probed.model()
    reader = probed.reader(probed.root / BATCH, model)
    text_only = [index for index, sample in enumerate(reader.samples) if sample.image is None]
    if not text_only:
        raise DataError(f"{BATCH} holds no text-only sample")
    trainer = make_trainer(model, reader, single_step(text_only), probed.math)
    trainer.accumulate(next(trainer.batches()))
    gradients = {name: value.grad for name, value in model.projector.named_parameters()}
    missing = [name for name, value in gradients.items() if value is None]
    if missing:
        quantities.failed(
            "text_only_projector_gradient",
            f"no gradient for the connector's {', '.join(missing)}; the official code has zeros",
        )
        return
    ours = [value.abs().max().item() for value in gradients.values() if value is not None]
    quantities.close("text_only_projector_gradient", ours, recorded, 0.0)


@torch.no_grad()
def _check_shapes(model: Any, record: dict[str, Any], quantities: Quantities) -> None:
    """Embeddings of two texts of two ids with an image each, and of a video of two frames."""
    size = model.config.vision_config.image_size
    features: Tensor = model.projector(model.encode_images(torch.zeros(2, 3, size, size)))
    images, tokens, hidden = features.shape
    quantities.exact("shapes", [images, 2 + tokens, hidden], record["list_of_3d_images_flat"])
    frames = features.flatten(0, 1)[None]
    quantities.exact("shapes", list(frames.shape), record["is_video_nopool_shape"])
