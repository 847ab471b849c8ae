"""Folders with pickles alone: refused with the command, converted, and trained to the very weights
of the safetensors that the pickles were made of.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densekit.errors import DataError
from densekit.exchange.convert import convert_folder
from densekit.files.hashing import file_sha256
from densekit.runs.manifest import read_manifest
from tests.support.training import start_run
from tests.support.workplace import Workplace

PARTS = ("language_model", "vision_tower")
FEW_STEPS = ("assets=null", "optimizer.max_steps=2")


def pickled(folder: Path, made: Path) -> Path:
    """A copy of a model's folder with its weights as pickles, in two shards without an index."""
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = list(load_file(made / "model.safetensors").items())
    for number, part in ((1, tensors[::2]), (2, tensors[1::2])):
        torch.save(dict(part), folder / f"pytorch_model-0000{number}-of-00002.bin")
    return folder


def test_a_converted_folder_trains_to_the_same_weights(
    workplace: Workplace, tmp_path: Path
) -> None:
    tiny = workplace.root / ".cache" / "densekit" / "tiny"
    folders = {part: pickled(tmp_path / part, tiny / part) for part in PARTS}
    named = [f"models.{part}={folder}" for part, folder in folders.items()]
    with pytest.raises(DataError, match=rf"convert them with `densekit convert {tmp_path}/lang"):
        start_run(workplace, tmp_path / "theirs", *FEW_STEPS, *named, world_size=1)
    done = workplace.densekit("convert", str(folders["language_model"]), "--launcher", "local")
    assert done.returncode == 0 and "tensors of 2 pickles in 3 files" in done.stdout, done
    assert "equal bit for bit" in done.stderr
    convert_folder(folders["vision_tower"])
    started = start_run(workplace, tmp_path / "theirs", *FEW_STEPS, *named, world_size=1)
    kept = start_run(workplace, tmp_path / "ours", *FEW_STEPS, world_size=1)
    for each in (started, kept):
        each.finish()
    ours, theirs = kept.weights(), started.weights()
    assert ours.keys() == theirs.keys() and len(ours) > 4
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert_recorded(started.run.path, folders["language_model"])


def assert_recorded(run: Path, folder: Path) -> None:
    """The manifest names the pickles' hashes beside those of the files that were read."""
    recorded = read_manifest(run).models["language_model"]
    pickles = {path.name: file_sha256(path) for path in folder.glob("*.bin")}
    assert recorded.converted_from == pickles and not recorded.files.keys() & pickles.keys()
