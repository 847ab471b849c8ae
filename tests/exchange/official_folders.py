"""Official checkpoint folders of the committed set in further forms, for tests to read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def copied(source: Path, target: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(source, target)
    return target


def edit_config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    path = folder / name
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def stage1(golden_exchange: Path, folder: Path) -> Path:
    """A stage-1 output folder."""
    given = golden_exchange / "given" / "clip_dci" / "stage1_into_checkpoint"
    copied(given / "checkpoint-20", folder)
    shutil.copyfile(given / "mm_projector" / "checkpoint-20.bin", folder / "mm_projector.bin")
    return folder


def sharded(
    golden_exchange: Path,
    folder: Path,
    keep: Callable[[str], bool] = lambda name: True,
    change: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, value: value,
) -> Path:
    """The full folder as older transformers wrote it: pickles in two shards and their index."""
    given = golden_exchange / "given" / "clip_dci" / "stage2"
    shutil.copytree(given, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(given / "model.safetensors")
    chosen = {name: change(name, value) for name, value in tensors.items() if keep(name)}
    weight_map = {}
    for number, names in ((1, list(chosen)[::2]), (2, list(chosen)[1::2])):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: chosen[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder
