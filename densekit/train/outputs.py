"""What a run leaves behind: the trained weights in files, and the model they make."""

import shutil
from pathlib import Path

from torch import Tensor

from densekit.files import durable
from densekit.files.permissions import follow_umask
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.weights import save_weights
from densekit.runs.layout import CONNECTOR_FILE, NEWLINE_FILE, RunDir
from densekit.spec.math import Math
from densekit.text.tokenizers.base import TOKENIZER_FILES
from densekit.train.engines.base import Engine
from densekit.train.initial_state import NEWLINE
from densekit.train.lora import save_lora


def save_results(engine: Engine, run: RunDir, math: Math, tokenizer: Path) -> list[Path]:
    """Write what was trained: connector.safetensors (fp32), and model/ (full, with its tokenizer)
    or lora/ in stage 2; newline.safetensors beside them under AnyRes, drawn or trained.

    Every rank must call it; rank 0 writes. Returns the files.
    """
    trained = {
        name: engine.full_weight(name)
        for name in engine.trainable
        if name.startswith("projector.") or math.lora or name == NEWLINE
    }
    full = math.stage == 2 and not math.lora
    model = engine.model
    parts = {"vision_tower": model.vision_tower, "language_model": model.language_model}
    if model.high_resolution_tower is not None:
        parts["high_resolution_tower"] = model.high_resolution_tower
    weights = {name: engine.weights_of(part) for name, part in parts.items()} if full else {}
    newline = None
    if model.image_newline is not None:
        whole = engine.weights_of(model.image_newline)  # every rank, frozen or not
        newline = trained.get(NEWLINE, whole.get("weight"))
    if engine.rank != 0:
        return []
    connector = {
        name.removeprefix("projector."): w
        for name, w in trained.items()
        if name.startswith("projector.")
    }
    save_weights(connector, run.path / CONNECTOR_FILE)
    written = [run.path / CONNECTOR_FILE]
    if newline is not None:
        save_weights({"weight": newline.float()}, run.path / NEWLINE_FILE)
        written.append(run.path / NEWLINE_FILE)
    if math.lora:
        adapters = {
            name.removeprefix("language_model."): weight
            for name, weight in trained.items()
            if name.startswith("language_model.")
        }
        save_lora(engine.model, adapters, math.lora, run.path / "lora")
        written += sorted((run.path / "lora").iterdir())
    elif full:
        if newline is not None:
            weights[""] = {NEWLINE: newline}
        _save_model(engine, {**weights, "projector": connector}, run.path / "model")
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, run.path / "model" / name)
        written += sorted((run.path / "model").iterdir())
    for path in written:  # the checkpoints go once these are on disk
        durable.wrote(path)
        durable.fsync(path)
    for folder in {path.parent for path in written}:
        durable.fsync(folder)
    return written


def _save_model(engine: Engine, parts: dict[str, dict[str, Tensor]], folder: Path) -> None:
    """The whole model in transformers' format, in the dtype it was trained in."""
    weights = {
        f"{part}.{name}".removeprefix("."): value.to("cpu", TORCH_DTYPES[engine.execution.dtype])
        if value.is_floating_point()
        else value.cpu()
        for part, values in parts.items()
        for name, value in values.items()
    }
    engine.model.save_pretrained(folder, state_dict=weights)
    follow_umask(folder)
