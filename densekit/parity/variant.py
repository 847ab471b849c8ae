"""One recorded variant of stage 2: a folder with record.json, a golden batch, and a curve of its
own data.

Its models and images are those of the recorded checkpoints beside the set
(golden_exchange/base); only what differs from the plain row is recorded here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densekit.files.json_files import read_object
from densekit.model.preprocess import pixel_values
from densekit.model.weights import read_weights
from densekit.parity.batch_outputs import check_gradients
from densekit.parity.case import Recording, make_trainer, read_argv, single_step
from densekit.parity.compare import FEATURES, LOSS, NORMS, Quantities
from densekit.parity.computed import pad, run_everywhere
from densekit.parity.curve import check_curve, check_weights
from densekit.parity.mining import check_mining, second_tower
from densekit.parity.names import by_official_name, official_name
from densekit.spec.types import IGNORE_INDEX
from densekit.train.engines.base import OptimizerStep
from densekit.train.optim import trainable
from densekit.train.step_dataset import SampleReader
from densekit.train.trainer import Trainer

RECORD = "record.json"
GROUPS = "param_groups_with_weight_decay_0.1"
LOGITS = 1e-4
GRADIENTS = 1e-4
GRADIENT_STATISTICS = 1e-5
"""Gradients of query and keys are a hundredth of the others, and round as these do."""
TOWER = "vision_tower"
NEWLINE = "image_newline"
HEIGHTS_FIRST = 13
"""The Pillow that resizes the heights of portraits first."""
ZEROS = "_zero"
"""End of the name of a case that repeats another one's curve with zeros for absent gradients."""
NO_GRADIENT = (
    ".k_proj.bias",
    "vlm_uni_aux_projector.0.bias",
    "vlm_uni_aux_projector.1.bias",
)
"""Softmax ignores a constant added to all keys: the true gradient is 0, and Adam amplifies what
rounding leaves of it.
"""
MINING = "vlm_uni_"
"""How Mini-Gemini's names of mining begin."""


def read_variant(root: Path, folder: Path) -> Recording:
    """The recording in a folder; DataError when it lacks something."""
    record = read_object(folder / RECORD, "argv", "steps", "config", "final_params")
    arguments = read_argv(record["argv"])
    base = root.parent / "golden_exchange" / "base"
    for name in ("model_name_or_path", "vision_tower", "image_folder"):
        if not (root / arguments[name]).is_dir():
            arguments[name] = str(_beside(base, arguments[name]))
    groups = record.get(GROUPS, [])
    rates = {group["lr"] for group in groups if any(TOWER in n for n in group["names"])}
    if rates:
        arguments["mm_vision_tower_lr"] = str(*rates)
    if "image_grid_pinpoints" in record["config"]:
        arguments["image_grid_pinpoints"] = json.dumps(record["config"]["image_grid_pinpoints"])
    for step in record["steps"]:
        step["lr"] = step["lr_groups"]
    for name in record.get("trainable_without_grad", []):  # of blocks that are not built here
        del record["final_params"][name]
    return Recording(root, record, arguments)


def _beside(base: Path, name: str) -> Path:
    """A folder of the recorded checkpoints; Mini-Gemini's code wants a maker before a tower's
    name.
    """
    if (base / name).is_dir():
        return base / name
    return base / "models" / name.removeprefix("openai-")


def check_variant(root: Path, folder: Path, quantities: Quantities) -> None:
    """Everything recorded of one variant that densekit computes."""
    recording = read_variant(root, folder)
    pillow, tower = recording.record["versions"]["pillow"], recording.arguments["vision_tower"]
    with resizing_as(pillow), second_tower(folder, root / tower) as second:
        if second is not None:
            recording.arguments["vision_tower_aux"] = str(second)
        _check(recording, folder, quantities)


@contextmanager
def resizing_as(version: str) -> Iterator[None]:
    """Resize images as a Pillow before 13 inside the block, where one recorded: it resized widths
    first, and 13 the heights of portraits, which differ by up to two levels (docs/log.md).
    """
    if int(version.partition(".")[0]) >= HEIGHTS_FIRST:
        yield
        return
    resize = Image.Image.resize

    def widths_first(image: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
        return resize(resize(image, (size[0], image.height), resample), size, resample)

    with mock.patch.object(Image.Image, "resize", widths_first):
        yield


def _check(recording: Recording, folder: Path, quantities: Quantities) -> None:
    zeros = folder.name.endswith(ZEROS)
    begun = folder.with_name(folder.name.removesuffix(ZEROS))
    start = read_weights(begun / "init.safetensors")
    init = {_initial(name): value for name, value in start.items()}
    data = Path(recording.math.data.annotations)
    model = recording.model(init)
    golden = data.with_name(data.name.replace("train", "golden"))
    reader = recording.reader(golden, model)
    if not zeros:
        arrays = dict(np.load(folder / "golden.npz"))
        _check_inputs(reader, model, recording, arrays, quantities)
        _check_batch(reader, model, recording, arrays, folder, quantities)
    model = recording.model(init)
    reader = recording.reader(data, model)
    _check_tokens(reader, dict(np.load(begun / "train_tokens.npz")), quantities)
    prepare = None if zeros else _skip_absent
    check_curve(recording, model, reader, quantities, rounding=NO_GRADIENT, prepare=prepare)
    final = by_official_name(read_weights(folder / "final.safetensors"))
    ours = by_official_name(model.projector.state_dict())
    if model.image_newline is not None:
        ours |= by_official_name({NEWLINE: model.image_newline.weight})
    ours, final = (
        {name: value for name, value in each.items() if not name.endswith(NO_GRADIENT)}
        for each in (ours, final)
    )
    check_weights("final_weights", ours, final, quantities)


def _initial(name: str) -> str:
    """What a run's init.safetensors calls a recorded tensor."""
    if name == NEWLINE:
        return "image_newline.weight"
    if name.startswith(MINING):
        part, _, rest = name.removeprefix(MINING).partition("_projector.")
        return f"connector.mining.{part}.{rest}"
    return name.replace("mm_projector", "connector")


def _skip_absent(trainer: Trainer) -> None:
    """In a batch of text alone the official code gives the newline vector no gradient, and torch's
    AdamW leaves it out; here, as under DeepSpeed, it has zeros (the recording `_zero`).
    """
    newline, update = trainer.engine.model.image_newline, trainer.engine.optimizer_step
    if newline is None:
        return

    def step(lr_factor: float) -> OptimizerStep:
        gradient = newline.weight.grad
        if gradient is not None and not gradient.any():
            newline.weight.grad = None
        return update(lr_factor)

    trainer.engine.optimizer_step = step  # type: ignore[method-assign]


def _check_tokens(
    reader: SampleReader, tokens: dict[str, np.ndarray], quantities: Quantities
) -> None:
    for index, sample in enumerate(reader.samples):
        encoded = reader.encode(index)
        for name, found in (("input_ids", encoded.input_ids), ("labels", encoded.labels)):
            quantities.close(name, found, tokens[f"{sample.entry_id}/{name}"], 0.0)


def _check_inputs(
    reader: SampleReader,
    model: Any,
    recording: Recording,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """Ids, labels, pixels and features of the golden batch."""
    record, count = recording.record, len(reader.samples)
    sequences = []
    for index in range(count):
        encoded = reader.encode(index)
        quantities.close("input_ids", encoded.input_ids, arrays[f"sample{index}/input_ids"], 0.0)
        quantities.close("labels", encoded.labels, arrays[f"sample{index}/labels"], 0.0)
        sequences.append(reader.sequence(index)[0])
    labels = pad([sequence.labels for sequence in sequences], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["mm/labels"], 0.0)
    lengths = [len(sequence.labels) for sequence in sequences]
    quantities.exact("labels", lengths, record["expanded_lengths"])
    supervised = [sequence.label_count for sequence in sequences]
    quantities.exact("labels", supervised, record["n_supervised_per_sample"])
    table = torch.from_numpy(reader.processor.lookup_table())
    pixels: list[Tensor] = []
    for index in range(count):
        image, size = reader.image(index), reader.processor.size
        array = np.zeros((0, 3, size, size), dtype=np.uint8)
        if image is not None:
            array = image.pixels.reshape(-1, 3, size, size)
        views = max(1, len(array))
        first = sum(len(each) for each in pixels)
        recorded = slice(first, first + views)
        zero = arrays["batch/pixel_is_zero_tensor"][recorded].tolist()
        quantities.exact("pixels", [image is None] * views, zero)
        if image is not None:
            quantities.close("pixels", array, arrays["batch/pixel_uint8"][recorded], 0.0)
        pixels.append(pixel_values(torch.from_numpy(array), table))
    with torch.no_grad():
        images = torch.cat(pixels)
        dense, windows = model.encode_images(images), model.windows_of(images)
        projected = model.projector(dense, windows)
        if windows is not None:
            check_mining(model, images, arrays, quantities)
            dense = model.projector.mining(dense, windows)
    tokens = arrays["feat_patch_index"]
    for name, found, stored in (
        ("dense_features", dense, "dense_features"),
        ("projector_output", projected, "projector_out"),
    ):
        quantities.close(name, found[:, tokens], arrays[stored], FEATURES)
        norms = arrays[f"{stored.partition('_')[0]}_token_l2"]
        quantities.each_relative(f"{name}_norms", found.norm(dim=-1), norms, NORMS)


def _check_batch(
    reader: SampleReader,
    model: Any,
    recording: Recording,
    arrays: dict[str, np.ndarray],
    folder: Path,
    quantities: Quantities,
) -> None:
    """Logits, loss, gradients and the optimizer's groups."""
    record = recording.record
    trainer = make_trainer(model, reader, single_step(range(len(reader.samples))), recording.math)
    batch = next(trainer.batches())
    (micro_batch,) = batch.micro_batches
    images = pixel_values(micro_batch.pixels, trainer.lookup_table)
    embeddings, logits = run_everywhere(model, micro_batch, images)
    starts = micro_batch.cu_seqlens.tolist()
    valid = torch.from_numpy(arrays["mm/attention_mask"])
    columns = torch.from_numpy(arrays["out/vocab_cols"])
    chosen = {
        "input_embeddings": (embeddings, "mm/inputs_embeds", FEATURES),
        "logits": (logits[:, columns], "out/logits_cols", LOGITS),
        "logsumexp": (logits.logsumexp(-1), "out/logsumexp", LOGITS),
        "argmax": (logits.argmax(-1), "out/argmax", 0.0),
    }
    quantities.exact("labels", [*valid.sum(1).tolist()], np.diff(starts).tolist())
    for name, (found, recorded, tolerance) in chosen.items():
        quantities.close(name, found, torch.from_numpy(arrays[recorded])[valid], tolerance)
    loss = trainer.accumulate(batch).item()
    quantities.close("loss", loss, record["loss"], LOSS)
    full = read_weights(folder / "golden_grads.safetensors")
    kept = {name: value for name, value in full.items() if not name.endswith(NO_GRADIENT)}
    statistics = {n: v for n, v in record["grad"].items() if not n.endswith(NO_GRADIENT)}
    ours = {name: p for name, p in model.named_parameters() if p.requires_grad}
    quantities.exact("trainable", sorted(map(official_name, ours)), sorted(record["grad"]))
    check_gradients(
        model,
        {"grad": statistics},
        kept,
        quantities,
        tolerance=GRADIENTS,
        statistics_tolerance=GRADIENT_STATISTICS,
    )
    norm = torch.stack([p.grad.norm() for p in ours.values() if p.grad is not None]).norm()
    quantities.relative("gradients", norm, record["grad_total_l2"], GRADIENTS)
    _check_groups(model, recording, quantities)


def _check_groups(model: Any, recording: Recording, quantities: Quantities) -> None:
    """Rate and weight decay of every parameter that is built here."""
    names: dict[int, str] = {id(p): official_name(name) for name, p in model.named_parameters()}
    ours: dict[str, tuple[float, bool]] = {
        names[id(p)]: (rate, decay) for p, rate, decay in trainable(model, recording.math.optimizer)
    }
    unused = {*recording.record["trainable_without_grad"]}
    recorded = {
        name: (group["lr"], group["weight_decay"] > 0)
        for group in recording.record[GROUPS]
        for name in group["names"]
        if name not in unused
    }
    quantities.exact("optimizer", ours, recorded)
