"""What a run leaves behind: the trained weights in files, and the model they make."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from densekit.files import durable
from densekit.files.permissions import follow_umask
from densekit.model.config import DenseConnectorConfig
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.pretrained import load_pretrained
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import read_weights, save_weights
from densekit.runs.layout import CONNECTOR_FILE, INIT_FILE, RunDir
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.text.tokenizers.base import TOKENIZER_FILES
from densekit.train.engines.base import Engine
from densekit.train.initial_state import NEWLINE, apply_init, load_base
from densekit.train.lora import save_lora


def save_results(engine: Engine, run: RunDir, math: Math, tokenizer: Path) -> list[Path]:
    """Write what was trained: connector.safetensors (fp32), and model/ (full, with its tokenizer)
    or lora/ in stage 2.

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
    weights = {name: engine.weights_of(part) for name, part in parts.items()} if full else {}
    if engine.rank != 0:
        return []
    connector = {
        name.removeprefix("projector."): w
        for name, w in trained.items()
        if name.startswith("projector.")
    }
    save_weights(connector, run.path / CONNECTOR_FILE)
    written = [run.path / CONNECTOR_FILE]
    if math.lora:
        adapters = {
            name.removeprefix("language_model."): weight
            for name, weight in trained.items()
            if name.startswith("language_model.")
        }
        save_lora(engine.model, adapters, math.lora, run.path / "lora")
        written += sorted((run.path / "lora").iterdir())
    elif full:
        if NEWLINE in trained:
            weights[""] = {NEWLINE: trained[NEWLINE]}
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


def load_trained(run: RunDir, roots: Roots) -> DenseConnectorForConditionalGeneration:
    """The model a complete run trained, in eval mode."""
    math = run.math.recipe
    if math.stage == 2 and not math.lora:
        folder = run.path / "model"
        trained: DenseConnectorForConditionalGeneration = load_pretrained(
            DenseConnectorForConditionalGeneration,
            folder,
            what="trained model",
            config=DenseConnectorConfig.from_pretrained(folder, local_files_only=True),
            dtype=torch.float32,
            dropped=(),
        )
        trained.eval()
        return trained
    model = load_base(math, roots)
    # A newline vector that is not trained is the one that was drawn.
    drawn = read_weights(run.path / INIT_FILE) if math.data.anyres else {}
    init = {name: value for name, value in drawn.items() if name == NEWLINE}
    init |= {
        f"connector.{name}": value
        for name, value in read_weights(run.path / CONNECTOR_FILE).items()
    }
    if math.lora:
        adapters = read_weights(run.path / "lora" / "adapter_model.safetensors")
        init |= {f"lora.{name}": value for name, value in adapters.items()}
    apply_init(model, init)
    model.eval()
    return model
