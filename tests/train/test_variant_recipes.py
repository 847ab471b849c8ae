"""The paper's variants by their own recipes, both stages, on tiny models: nothing but models, data
and sizes is set.
"""

import json
from pathlib import Path

import pytest
import torch

from densekit.exchange.loading import load_model
from densekit.files.json_files import write_json
from densekit.launch.chain import reproduce
from densekit.model.weights import read_weights
from densekit.recipes.load import load_recipe
from densekit.runs.layout import RunDir
from densekit.runs.records import read_steps
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.second_tower import open_clip
from tests.support.workplace import Forked

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

NAMES = (
    "vicuna7b_clip_efficient_stage2",
    "vicuna7b_clip_efficient_before_stage2",
    "vicuna7b_clip_sti_conv_stage2",
    "vicuna7b_clip_sci_conv_stage2",
    "vicuna7b_clip_dci_linear_stage2",
    "vicuna7b_clip_tuned_stage2",
    "vicuna7b_clip_anyres_stage2",
    "vicuna7b_clip_anyres_both_stage2",
    "vicuna7b_clip_convnext_mgm_stage2",
)
STEPS = 3
TILES = "[[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]"


def smaller(golden_exchange: Path, folder: Path) -> list[str]:
    """What is set: models, data and sizes."""
    base = golden_exchange / "base"
    entries = [
        {
            "id": f"e{number}",
            "image": f"img{number % 8}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nwhat sings over the hills?"},
                {"from": "gpt", "value": f"the fox {'and the dog ' * (number % 3)}sing."},
            ],
        }
        for number in range(4 * STEPS)
    ]
    write_json(folder / "data.json", json.loads(json.dumps(entries)))
    return [
        f"models.language_model={base / 'models' / 'llm_v1'}",
        f"models.vision_tower={base / 'models' / 'clip_tiny'}",
        f"data.annotations={folder / 'data.json'}",
        f"data.images={base / 'images'}",
        "data.samples=null",
        "data.max_length=512",
        "global_batch_size=4",
        "reference={gpus: 1, per_device_batch_size: 4, grad_accum_steps: 1}",
        "optimizer.warmup_ratio=0",
    ]


def trained(name: str, overrides: list[str], folder: Path) -> RunDir:
    """The run of one recipe."""
    before = {*(folder / "runs").glob("*/math.json")}
    code = reproduce(
        name,
        overrides=overrides,
        runs_dir=folder / "runs",
        roots=Roots(data=folder, models=folder, cache=folder / "cache"),
        request=ExecutionRequest(),
        launcher=Forked(),
    )
    assert code == 0
    (math,) = {*(folder / "runs").glob("*/math.json")} - before
    return RunDir(math.parent)


@pytest.mark.parametrize("name", NAMES)
def test_both_stages_train(name: str, golden_exchange: Path, tmp_path: Path) -> None:
    overrides = smaller(golden_exchange, tmp_path)
    if "convnext" in name:
        tower = open_clip(tmp_path / "convnext")
        overrides += [
            f"models.high_resolution_tower={tower}",
            "connector.mining.image_size=128",
        ]
    needed = load_recipe(name).needs
    assert needed is not None
    tiles = f"data.anyres.pinpoints={TILES}"
    one = trained(needed, [*overrides, *([tiles] if "both" in name else [])], tmp_path)
    start = one.path / "connector.safetensors"
    overrides += ["needs=null", f"models.connector={start}"]
    if "anyres" in name:
        overrides.append(tiles)
    two = trained(name, overrides, tmp_path)
    assert one.complete and two.complete
    lines = read_steps(two.metrics)
    assert len(lines) == STEPS and all(line.loss is not None for line in lines)
    assert (lines[0].part_lrs is not None) == ("tuned" in name)
    init, first = read_weights(two.path / "init.safetensors"), read_weights(start)
    assert ("image_newline.weight" in init) == ("anyres" in name)
    has_modules = any(key.startswith("connector.") for key in first)
    assert has_modules == ("_conv_" in name or "linear" in name)
    after = read_weights(two.path / "connector.safetensors")
    assert all(not torch.equal(after[key], value) for key, value in first.items())
    model, _ = load_model(two.path)
    if model.image_newline is not None:
        drawn = init["image_newline.weight"]
        assert not torch.equal(model.image_newline.weight, drawn)
        if "both" in name:
            kept = read_weights(one.path / "init.safetensors")["image_newline.weight"]
            assert not torch.equal(kept, drawn)
            assert torch.equal(kept, read_weights(one.path / "newline.safetensors")["weight"])
    assert any(key.startswith("mining.") for key in after) == ("convnext" in name)
    if "efficient" in name:
        assert model.config.image_layout.max_tokens == 4
