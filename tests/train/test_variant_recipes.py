"""The paper's variants by their own recipes, both stages, on tiny models: nothing but models, data
and sizes is set.
"""

import json
from pathlib import Path

import pytest
import torch

from densekit.files.json_files import write_json
from densekit.launch.chain import reproduce
from densekit.model.weights import read_weights
from densekit.runs.layout import RunDir
from densekit.runs.records import read_steps
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from densekit.train.outputs import load_trained
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
)
STEPS = 3
TILES = "[[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]"


def prepared(name: str, golden_exchange: Path, folder: Path) -> tuple[str, list[str]]:
    """The recipe to train, by name or path, and what is set."""
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
    overrides = [
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
    if "anyres" not in name:
        return name, overrides
    # Stage 1 has no tiles, and what is set is set in both stages.
    path = folder / f"small_{name}.yaml"
    text = f"extends: {name}\ntitle: small\ndata: {{anyres: {{pinpoints: {TILES}}}}}\n"
    path.write_text(text, encoding="utf-8")
    return str(path), overrides


@pytest.mark.parametrize("name", NAMES)
def test_both_stages_train(name: str, golden_exchange: Path, tmp_path: Path) -> None:
    recipe, overrides = prepared(name, golden_exchange, tmp_path)
    roots = Roots(data=tmp_path, models=tmp_path, cache=tmp_path / "cache")
    code = reproduce(
        recipe,
        overrides=overrides,
        runs_dir=tmp_path / "runs",
        roots=roots,
        request=ExecutionRequest(),
        launcher=Forked(),
    )
    assert code == 0
    runs = {RunDir(path).math.recipe.stage: RunDir(path) for path in (tmp_path / "runs").iterdir()}
    assert {stage: run.complete for stage, run in runs.items()} == {1: True, 2: True}
    lines = read_steps(runs[2].metrics)
    assert len(lines) == STEPS and all(line.loss is not None for line in lines)
    assert (lines[0].part_lrs is not None) == ("tuned" in name)
    init = read_weights(runs[2].path / "init.safetensors")
    assert ("image_newline.weight" in init) == ("anyres" in name)
    first = read_weights(runs[1].path / "connector.safetensors")
    assert any(key.startswith("connector.") for key in first) == (
        "conv" in name or "linear" in name
    )
    model = load_trained(runs[2], roots)
    if model.image_newline is not None:
        drawn = init["image_newline.weight"]
        assert not torch.equal(model.image_newline.weight.cpu(), drawn)
    layout = model.config.image_layout
    if "efficient" in name:
        assert layout.max_tokens == 4
