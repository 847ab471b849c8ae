"""`densekit run` on a user's own recipe over the recorded data, models and the real Llama-2
tokenizer."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks


def _recipe(recorded: Path, stage: int) -> dict:
    case = recorded / "clip_dci"
    return {
        "title": "the recorded training",
        "stage": stage,
        "models": {
            "language_model": str(recorded / "models" / "llm_tiny"),
            "vision_tower": str(recorded / "models" / "clip_tiny"),
            "connector": str(case / ("projector_init" if stage == 1 else "projector_after_stage1"))
            + ".safetensors",
        },
        "connector": {"kind": "dci", "groups": [list(range(12)), list(range(12, 24))]},
        "data": {
            "annotations": str(recorded / "data" / f"stage{stage}_train.json"),
            "images": str(recorded / "data" / "images"),
            "template": "plain" if stage == 1 else "v1",
            "image_aspect_ratio": "square" if stage == 1 else "pad",
            "max_length": 128,
            "group_by_modality_length": stage == 2,
        },
        "optimizer": {"learning_rate": "1e-3", "max_grad_norm": 1.0, "max_steps": 20},
        "global_batch_size": 2,
        "reference": {"gpus": 1, "per_device_batch_size": 2},
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_the_recorded_curve_comes_out_of_an_ordinary_run(
    recorded: Path, tmp_path: Path, stage: int
) -> None:
    (tmp_path / "recorded.yaml").write_text(yaml.safe_dump(_recipe(recorded, stage)))
    done = Workplace(tmp_path).densekit("run", "recorded.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("recorded-*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = json.loads((recorded / "clip_dci" / f"stage{stage}.json").read_text())["steps"]
    for line, step in zip(lines, steps, strict=True):
        assert line["loss"] == pytest.approx(step["loss"], abs=1e-4)
        assert line["grad_norm"] == pytest.approx(step["grad_norm_preclip"], rel=1e-4)
        assert line["lr"] == pytest.approx(step["lr"][0], abs=1e-12)
