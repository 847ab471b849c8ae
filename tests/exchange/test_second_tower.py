"""OpenCLIP's pickle of a ConvNeXt, converted and loaded as the second tower."""

from pathlib import Path

import torch

from densekit.exchange.convert import convert_folder
from densekit.launch.checks.models import second_problems
from densekit.model.towers.convnext import (
    conv_config,
    load_high_resolution_tower,
    transformers_name,
)
from densekit.spec.mining import Mining
from tests.support.second_tower import conv_weights, open_clip

MINING = Mining(image_size=128, window=8, drop_path=0.1)
FIELD = "models.high_resolution_tower"


def test_a_pickle_of_openclip_is_converted_and_loaded(tmp_path: Path) -> None:
    folder = open_clip(tmp_path / "tower")
    (folder / "open_clip_model.safetensors").unlink()
    weights = conv_weights()
    named = {f"visual.trunk.{name}": value for name, value in weights.items()}
    torch.save({**named, "logit_scale": torch.ones(())}, folder / "open_clip_pytorch_model.bin")
    (problem,) = second_problems(folder, FIELD, "fetch it")
    assert "densekit convert" in problem
    report = convert_folder(folder)
    assert [*report.conversion.files] == ["open_clip_model.safetensors"]
    assert second_problems(folder, FIELD, "fetch it") == []
    tower = load_high_resolution_tower(folder, conv_config(folder, MINING), torch.float32)
    loaded = tower.model.state_dict()
    assert loaded.keys() == {transformers_name(name) for name in weights}
    assert all(torch.equal(loaded[transformers_name(n)], v) for n, v in weights.items())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (problem,) = second_problems(tmp_path / "no", FIELD, "fetch it")
    assert problem == f"{FIELD}: {tmp_path / 'no'} is not a folder: fetch it"
