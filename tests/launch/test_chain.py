"""`densekit run`: stages in order, each run once, nothing overwritten, nothing left behind by a
refusal.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json
from densekit.launch.chain import load_chain, open_next_attempt, reproduce
from densekit.launch.launchers import local
from densekit.recipes.load import load_recipe, recipe_names
from densekit.runs.layout import RunDir, open_run
from densekit.spec.execution import ExecutionRequest
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots
from tests.support.files import names, write_json
from tests.support.launching import make_pair, stub_run, trainer
from tests.support.runs import flip_byte


@pytest.fixture(autouse=True)
def completes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "command", trainer("status('complete')"))


def go(
    folder: Path, name: str = "tiny_stage2", *overrides: str, force: bool = False, **options: Any
) -> int:
    return reproduce(
        name,
        overrides=overrides,
        runs_dir=folder / "runs",
        roots=Roots(data=folder, models=folder, cache=folder / "cache"),
        request=ExecutionRequest(**options),
        force=force,
    )


def runs(folder: Path) -> dict[str, RunDir]:
    """Run directories by recipe name and what follows the hash."""
    found = sorted(path for path in (folder / "runs").glob("*") if path.is_dir())
    return {path.name.split("-")[0] + path.suffix: RunDir(path) for path in found}


def trained(run: RunDir) -> int:
    """How often a trainer was started in a run."""
    return len((run.path / "trained").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", recipe_names())
def test_chain_is_the_needed_stage_then_the_recipe(name: str) -> None:
    chain = load_chain(name, [])
    assert [recipe.stage for recipe in chain] == [1, 2][: chain[-1].stage]
    assert chain[-1].name == name


@pytest.mark.parametrize("force", [False, True])
def test_a_checkpoint_that_is_not_there_is_refused_before_a_run_exists(
    tmp_path: Path, force: bool
) -> None:
    message = "one resumes, the other retrains" if force else "no checkpoint of that step; it has"
    with pytest.raises(UsageError, match=f"--from-checkpoint.*{message}"):
        go(tmp_path, "tiny_stage1", from_checkpoint=3, force=force)
    assert not (tmp_path / "runs").exists()


def test_the_next_attempt_of_a_job_forgets_the_checkpoint_that_was_chosen(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, "", from_checkpoint=4)
    assert run.execution.from_checkpoint == 4
    run.set_status("preempted")
    open_next_attempt(run.path)
    assert run.status.attempt == 2 and run.execution == execution.model_copy(
        update={"from_checkpoint": None}
    )


@pytest.mark.ranks
def test_stage_2_starts_from_stage_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert go(Path(), world_size=2, micro_batch_size=4) == 0
    first, second = runs(tmp_path)["tiny_stage1"], runs(tmp_path)["tiny_stage2"]
    assert first.complete and second.complete
    assert (first.math.starts_from, second.math.starts_from) == (None, first.sha256)
    execution = read_json(second.attempt / "execution.json")
    assert execution["starts_from"] == str(first.path)
    assert (execution["world_size"], execution["micro_batch_size"]) == (2, 4)
    assert execution["roots"] == {
        name: str(tmp_path / part)
        for name, part in zip(("data", "models", "cache"), ("", "", "cache"), strict=True)
    }


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["connector.safetensors", "manifest.json"])
def test_stage_2_is_not_begun_from_a_damaged_stage_1(tmp_path: Path, name: str) -> None:
    """Refused before a run directory of stage 2 exists; stage 1 is not called complete."""
    assert go(tmp_path, "tiny_stage1") == 0
    flip_byte(runs(tmp_path)["tiny_stage1"].path / name, -6)
    with pytest.raises(DataError, match=rf"{name}.*--force"):
        go(tmp_path)
    assert list(runs(tmp_path)) == ["tiny_stage1"]


@pytest.mark.ranks
def test_complete_run_is_not_retrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(tmp_path) == go(tmp_path) == 0
    assert [trained(run) for run in runs(tmp_path).values()] == [1, 1]
    assert "tiny_stage2: already complete in " in capsys.readouterr().out
    assert go(tmp_path, world_size=2) == 0
    assert [trained(run) for run in runs(tmp_path).values()] == [1, 1]


@pytest.mark.ranks
def test_recipes_share_their_stage_1(tmp_path: Path) -> None:
    assert go(tmp_path) == go(tmp_path, "tiny_stage2_lora") == 0
    found = runs(tmp_path)
    assert sorted(found) == ["tiny_stage1", "tiny_stage2", "tiny_stage2_lora"]
    assert trained(found["tiny_stage1"]) == 1


def test_run_that_does_not_fit_is_refused_before_a_run_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densekit.planner.rules.host_memory", lambda: 1)
    message = r"tiny_stage1 is estimated not to fit .* --device cpu.*--micro-batch N"
    with pytest.raises(DataError, match=message):
        go(tmp_path, "tiny_stage1")
    assert not (tmp_path / "runs").exists()


@pytest.mark.ranks
def test_micro_batch_tries_a_run_that_does_not_fit_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densekit.planner.rules.host_memory", lambda: 1)
    assert go(tmp_path, "tiny_stage1", micro_batch_size=2) == 0
    assert "plan: tiny_stage1 is estimated not to fit into memory" in capsys.readouterr().err


@pytest.mark.ranks
def test_cpu_offload_is_in_the_execution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(tmp_path, "tiny_stage1", cpu_offload=True) == go(tmp_path / "b", "tiny_stage1") == 0
    assert "(ZeRO-3, CPU offload, fp32, sdpa attention)" in capsys.readouterr().out
    found = [
        read_json(runs(folder)["tiny_stage1"].attempt / "execution.json")
        for folder in (tmp_path, tmp_path / "b")
    ]
    assert [(one["cpu_offload"], one["zero_stage"], one["nodes"]) for one in found] == [
        (True, 3, 1),
        (False, 0, 1),
    ]
    with pytest.raises(
        UsageError, match="only ZeRO-3 keeps the optimizer in host RAM; use --zero-stage 3"
    ):
        go(tmp_path / "c", "tiny_stage1", cpu_offload=True, zero_stage=2)
    assert "c" not in names(tmp_path)


@pytest.mark.ranks
def test_force_moves_the_last_stage_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tmp_path, force=True)
    assert sorted(runs(tmp_path)) == ["tiny_stage1", "tiny_stage2"]
    go(tmp_path, force=True)
    go(tmp_path, force=True)
    found = runs(tmp_path)
    assert sorted(found) == ["tiny_stage1", "tiny_stage2", "tiny_stage2.old1", "tiny_stage2.old2"]
    assert [trained(run) for run in found.values()] == [1, 1, 1, 1]
    assert "moved the earlier run aside to " in capsys.readouterr().out


@pytest.mark.ranks
def test_failed_stage_ends_the_chain_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "command", trainer("status('failed', 'why', 3); sys.exit(3)"))
    assert go(tmp_path) == 3
    assert sorted(runs(tmp_path)) == ["tiny_stage1"]
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    assert go(tmp_path) == 0
    first = runs(tmp_path)["tiny_stage1"]
    assert first.status.attempt == 2 and first.complete


@pytest.mark.ranks
def test_second_driver_is_refused(tmp_path: Path) -> None:
    run = open_run(
        tmp_path / "runs", RunMath(recipe=load_recipe("tiny_stage1").math(), starts_from=None)
    )
    with (
        FileLock(run.path.with_name(f".{run.path.name}.lock")),
        pytest.raises(
            UsageError, match=r"another densekit is training .*; wait for it, or stop it with"
        ),
    ):
        go(tmp_path)
    assert run.status.attempt == 0
    assert go(tmp_path) == 0


def test_shared_overrides_reach_both_stages(tmp_path: Path) -> None:
    connector = "connector={kind: sti, layers: [1, 3]}"
    first, second = load_chain(
        "tiny_stage2", [connector, "seed=7", "assets.seed=5", "optimizer.epochs=9"]
    )
    assert first.connector == second.connector and first.connector.kind == "sti"
    assert (first.assets and first.assets.seed) == (second.assets and second.assets.seed) == 5
    assert (first.seed, second.seed) == (7, 7)
    assert (first.optimizer.epochs, second.optimizer.epochs) == (1, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "connector: {kind: sti, layers: [1]}\n",
            "mine needs tiny_stage1, but their `connector` differ",
        ),
        ("models: {language_model: other}\n", "their `models.language_model` differ"),
        ("assets: {seed: 3}\n", "their `assets` differ"),
        ("needs: tiny_stage2\n", "mine needs tiny_stage2, which is not a stage-1 recipe"),
        ("needs: tiny_stage9\n", "no recipe named 'tiny_stage9'; did you mean tiny_stage"),
    ],
)
def test_stages_with_different_models_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write_json(tmp_path / "mine.yaml", "extends: tiny_stage2\n" + text)
    with pytest.raises(UsageError, match=message):
        go(tmp_path, str(path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.ranks
def test_user_recipes_resolve_paths_beside_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.Local, "inspect", lambda *_: [])
    path = make_pair(tmp_path / "mine")
    assert go(tmp_path, str(path)) == 0
    found = runs(tmp_path)
    assert sorted(found) == ["one", "two"]
    assert found["one"].math.recipe.data.annotations == str(tmp_path / "mine" / "one.json")


@pytest.mark.parametrize("broken", ["one.json", "two.json", "images"])
def test_preflight_covers_every_stage_before_the_first_run(tmp_path: Path, broken: str) -> None:
    path = make_pair(tmp_path / "mine")
    place = tmp_path / "mine" / broken
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(DataError):
        go(tmp_path, str(path))
    assert [name for name in names(tmp_path) if name != "cache"] == ["mine"]


@pytest.mark.parametrize(
    "options", [{"world_size": 0}, {"world_size": 1000}, {"micro_batch_size": 0}]
)
def test_invalid_counts_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"--(gpus|micro-batch) \d+: "):
        go(tmp_path, **options)
    assert names(tmp_path) == []
