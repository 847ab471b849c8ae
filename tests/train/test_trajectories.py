"""`densekit trajectory` on tiny trainings that really ran: 64 steps of stage 1 and their logs."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from densekit.audit.trajectory.compare import Trajectory, follow
from densekit.launch.chain import reproduce
from densekit.runs.layout import INIT_FILE, RunDir
from densekit.runs.records import METRICS_FILE, read_steps
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(1800)]

ASSETS = ("assets.language_model_steps=40",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four trainings by what is different in them."""
    folder = tmp_path_factory.mktemp("trajectories")
    found: dict[str, Path] = {}

    def train(name: str, *overrides: str) -> None:
        place = folder / name
        code = reproduce(
            "tiny_stage1",
            overrides=(*ASSETS, *overrides),
            runs_dir=place,
            roots=Roots(data=folder, models=folder, cache=folder / "cache"),
            request=ExecutionRequest(),
        )
        assert code == 0
        (found[name],) = (path for path in place.iterdir() if path.is_dir())

    train("first")
    train("other order", "seed=7")
    projector = {
        name.removeprefix("connector."): value
        for name, value in load_file(found["other order"] / INIT_FILE).items()
    }
    save_file(projector, folder / "projector.safetensors")
    train("other projector", f"models.connector={folder / 'projector.safetensors'}")
    train("other rate", "optimizer.learning_rate=4e-3")
    return found


def logged(run: Path, folder: Path, *, interval: int = 1) -> Path:
    """The trainer_state.json that HF's Trainer would have left of a run."""
    steps = read_steps(run / METRICS_FILE)
    losses = np.array([step.loss for step in steps], dtype=float)
    log = [
        {
            "loss": round(float(losses[step - interval : step].mean()), 4),
            "learning_rate": steps[step].lr if step < len(steps) else 0.0,
            "step": step,
        }
        for step in range(interval, len(steps) + 1, interval)
    ]
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"max_steps": len(steps), "log_history": log}), encoding="utf-8")
    return path


def cut(run: Path, folder: Path, *, steps: int) -> Path:
    """A run as it was after so many steps."""
    copy = folder / run.name
    copy.mkdir()
    for name in ("math.json", "certificate.json", "status.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    lines = (run / METRICS_FILE).read_bytes().splitlines(keepends=True)
    (copy / METRICS_FILE).write_bytes(b"".join(lines[:steps]))
    assert RunDir(copy).name == "tiny_stage1"
    return copy


def kinds(found: Trajectory) -> list[str]:
    return [situation.kind for situation in found.situations]


@pytest.mark.parametrize("steps", [50, 64])
@pytest.mark.parametrize(
    "name, expected",
    [
        ("first", ["same"]),
        ("other projector", ["other_projector_seed"]),
        ("other order", ["other_order"]),
        ("other rate", ["same_order", "other_learning_rate"]),
    ],
)
def test_a_training_beside_the_log_of_another(
    runs: dict[str, Path], tmp_path: Path, name: str, expected: list[str], steps: int
) -> None:
    run = cut(runs["first"], tmp_path, steps=steps)
    found = follow(run, logged(runs[name], tmp_path))
    assert kinds(found) == expected, found.report()
    assert found.consistent is (name in ("first", "other projector"))


def test_a_log_of_every_tenth_step_says_too_little_of_64(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    log = logged(runs["other projector"], tmp_path, interval=10)
    assert kinds(follow(runs["first"], log)) == ["undecided", "sparse_log"]
