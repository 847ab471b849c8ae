"""Stopping and resuming: other world sizes and engines, dropout, damaged checkpoints, full disks,
lost ranks.
"""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, read_jsonl, write_json
from densekit.runs.layout import RunDir, checkpoint_name, checkpoints_in
from densekit.train.checkpoints import prune
from tests.support.training import Kill, Started, assert_equal, start_run
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks
SLOW = pytest.mark.slow

# The second save of an attempt is whole: seven operations each, as tests/train/test_kills.py lists
# them.
AFTER_TWO_SAVES = Kill(0, 13, "ranks")


def metrics(started: Started) -> list[dict[str, Any]]:
    return read_jsonl(started.run.metrics)


@pytest.fixture(scope="module")
def undisturbed(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Started:
    started = start_run(workplace, tmp_path_factory.mktemp("undisturbed"), world_size=1)
    started.finish()
    return started


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 3), (1, 0)),
        *(
            pytest.param(*more, marks=SLOW)
            for more in (
                *(((2, 0), (1, 0)), ((1, 0), (2, 2))),
                *(((2, 2), (3, 3)), ((1, 3), (2, 0))),
            )
        ),
    ],
    ids=lambda topology: f"{topology[0]}x{('ddp', '', 'zero2', 'zero3')[topology[1]]}",
)
def test_a_run_resumes_at_another_world_size(
    undisturbed: Started,
    workplace: Workplace,
    tmp_path: Path,
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    started = start_run(workplace, tmp_path, world_size=before[0], zero_stage=before[1])
    started.attempt(AFTER_TWO_SAVES)
    assert [path.name for path in checkpoints_in(started.run.checkpoints)] == [
        "step-00000001",
        "step-00000002",
    ]
    started.finish(world_size=after[0], zero_stage=after[1])
    assert not started.run.checkpoints.exists()
    for line, expected in zip(metrics(started), metrics(undisturbed), strict=True):
        assert (line["ids"], line["images"], line["lr"]) == (
            expected["ids"],
            expected["images"],
            expected["lr"],
        )
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    certificates = [read_json(run.run.path / "certificate.json") for run in (started, undisturbed)]
    assert certificates[0] == certificates[1]
    ours, theirs = started.weights(), undisturbed.weights()
    assert all(torch.allclose(ours[name], value, atol=2e-4) for name, value in theirs.items())
    totals = [read_json(run.run.path / "results.json")["summary"] for run in (started, undisturbed)]
    for total in totals:
        for name in ("seconds", "data_seconds", "compute_seconds", "last_loss", "first_loss"):
            del total[name]
    assert totals[0] == totals[1]


# With three ranks a sum depends on the order in which it is taken; with two it does not.
@pytest.mark.parametrize(
    ("zero_stage", "world_size"),
    [(3, 2), *(pytest.param(*more, marks=SLOW) for more in ((0, 3), (2, 3), (3, 3)))],
)
def test_a_resumed_run_ends_in_the_same_bits(
    workplace: Workplace, tmp_path: Path, zero_stage: int, world_size: int
) -> None:
    """Dropout included: its masks are drawn again the same."""
    whole, stopped = (
        start_run(
            workplace,
            tmp_path / name,
            "optimizer.max_steps=4",
            recipe="tiny_stage2_lora",
            zero_stage=zero_stage,
            world_size=world_size,
        )
        for name in "ab"
    )
    assert whole.run.math.recipe.lora.dropout == 0.05
    whole.finish()
    stopped.attempt(AFTER_TWO_SAVES)
    stopped.finish()
    assert_equal(whole, stopped)


@SLOW
def test_cpu_offload_resumes_in_the_same_bits(workplace: Workplace, tmp_path: Path) -> None:
    whole, stopped = (
        start_run(workplace, tmp_path / name, zero_stage=3, cpu_offload=True) for name in "ab"
    )
    whole.finish()
    stopped.attempt(AFTER_TWO_SAVES)
    stopped.finish()
    assert_equal(whole, stopped)


@SLOW
def test_lora_under_zero3_on_two_ranks_is_lora_on_one(workplace: Workplace, tmp_path: Path) -> None:
    one, two = (
        start_run(
            workplace,
            tmp_path / str(world_size),
            "lora.dropout=0",
            recipe="tiny_stage2_lora",
            world_size=world_size,
            zero_stage=zero,
        )
        for world_size, zero in ((1, 0), (2, 3))
    )
    for started in (one, two):
        started.finish()
    for line, expected in zip(metrics(two), metrics(one), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
    ours, theirs = two.weights(), one.weights()
    assert ours.keys() == theirs.keys() and any(
        "lora_B" in name and value.any() for name, value in ours.items()
    )
    assert all(torch.allclose(ours[name], value, atol=2e-4) for name, value in theirs.items())


def test_checkpoints_are_kept_by_count_and_age(tmp_path: Path) -> None:
    now = time.time()
    for step, hours in ((1, 30), (2, 20), (3, 10), (4, 1), (5, 0)):
        folder = tmp_path / checkpoint_name(step)
        folder.mkdir()
        (folder / "checkpoint.json").write_text("{}")
        os.utime(folder, (now - hours * 3600, now - hours * 3600))
    assert [path.name[-1] for path in prune(tmp_path, keep=2, keep_hours=15)] == ["1", "2"]
    assert [path.name[-1] for path in prune(tmp_path, keep=2, keep_hours=0)] == ["3"]
    assert [path.name[-1] for path in sorted(tmp_path.iterdir())] == ["4", "5"]
    assert prune(tmp_path, keep=5, keep_hours=0) == []


def test_what_was_cut_off_is_kept_in_its_attempt(workplace: Workplace, tmp_path: Path) -> None:
    started = start_run(workplace, tmp_path, world_size=1, save_steps=2)
    started.attempt(
        Kill(0, 7)
    )  # the second save begins: four steps are on record, the checkpoint holds two
    assert len(metrics(started)) == 4
    started.finish()
    assert [line["step"] for line in metrics(started)] == [1, 2, 3, 4, 5, 6]
    for name in ("metrics.jsonl", "feed.jsonl"):
        assert [line["step"] for line in read_jsonl(started.run.attempt_folder(1) / name)] == [3, 4]


@pytest.fixture(scope="module")
def interrupted(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Started:
    started = start_run(workplace, tmp_path_factory.mktemp("interrupted"))
    started.attempt(AFTER_TWO_SAVES)
    return started


@pytest.fixture(scope="module")
def whole(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Started:
    """The same run of two ranks, not interrupted."""
    started = start_run(workplace, tmp_path_factory.mktemp("whole"))
    started.finish()
    return started


@pytest.fixture
def damaged(interrupted: Started, tmp_path: Path) -> Started:
    """A copy of an interrupted run of two ranks, to be damaged."""
    path = Path(shutil.copytree(interrupted.run.path, tmp_path / interrupted.run.path.name))
    return Started(RunDir(path), interrupted.execution)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def change_last_line(text: str) -> str:
    """Another digit in the last step of a feed.jsonl."""
    return text[:-20] + ("1" if text[-20] != "1" else "2") + text[-19:]


def edit_sealed(path: Path, **changes: Any) -> None:
    write_json(path, sealed({**read_json(path), **changes}))


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "flipped": (
        "rank-0001.safetensors",
        flip,
        r"rank-0001.safetensors is damaged: its SHA-256 is not the one recorded",
    ),
    "truncated": (
        "rank-0000.safetensors",
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        r"rank-0000.safetensors is damaged: \d+ bytes, \d+ were written",
    ),
    "edited": (
        "checkpoint.json",
        lambda path: path.write_text(path.read_text().replace('"optimizer_steps": 2', "9")),
        "checkpoint.json",
    ),
    "records cut": (
        "../../metrics.jsonl",
        lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:1])),
        "hold other steps than the 2 that the checkpoint counts",
    ),
    "feed flipped": (
        "../../feed.jsonl",
        lambda path: path.write_text(change_last_line(path.read_text())),
        "feed.jsonl",
    ),
}


@pytest.mark.parametrize("name", ["edited", *(pytest.param(name, marks=SLOW) for name in DAMAGE)])
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before_it(
    damaged: Started, name: str, whole: Started
) -> None:
    """Said in the log; the newer one is kept aside, and the run ends in the same bits."""
    file, damage, message = DAMAGE[name]
    newest = checkpoints_in(damaged.run.checkpoints)[-1]
    damage(newest / file)
    damaged.attempt(Kill(0, 9, "ranks"))  # after one save
    assert (damaged.run.checkpoints / "aside" / newest.name).is_dir()
    log = (damaged.run.attempt / "log.txt").read_text()
    assert re.search(message, log) and "resuming from checkpoint step 1" in log
    damaged.finish()
    assert_equal(damaged, whole)
    assert not damaged.run.checkpoints.exists()


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no state": (
        lambda folder: (folder / "checkpoint.json").unlink(),
        "checkpoint.json is missing",
    ),
    "another run": (
        lambda folder: edit_sealed(folder / "checkpoint.json", run="0" * 64),
        "step-00000002 belongs to another run",
    ),
    "another model": (
        lambda folder: edit_sealed(folder / "checkpoint.json", parameters={}),
        "holds other parameters than this model trains",
    ),
}


@pytest.mark.parametrize("name", ["no state", pytest.param("another run", marks=SLOW)])
def test_a_run_without_a_whole_checkpoint_is_refused(damaged: Started, name: str) -> None:
    damage, message = REFUSED[name]
    saved = checkpoints_in(damaged.run.checkpoints)
    for folder in saved:
        damage(folder)
    outcomes = damaged.attempt(world_size=1)
    assert outcomes[0].exit_code == 1 and "DataError" in (outcomes[0].error or "")
    status = damaged.run.status
    assert status.state == "failed" and status.exit_code == 3
    assert "no checkpoint can be resumed from" in status.message and message in status.message
    assert "--force" in status.message and checkpoints_in(damaged.run.checkpoints) == saved


def test_an_earlier_checkpoint_can_be_chosen(damaged: Started, whole: Started) -> None:
    outcomes = damaged.attempt(from_checkpoint=7)
    assert "SystemExit: 2" in str(outcomes[1].error) or "UsageError" in str(outcomes[1].error)
    assert "has no checkpoint of that step; it has 1, 2" in damaged.run.status.message
    damaged.finish(from_checkpoint=1)
    assert "resuming from checkpoint step 1" in (damaged.run.attempt / "log.txt").read_text()
    assert_equal(damaged, whole)


def test_a_full_disk_while_saving(damaged: Started) -> None:
    """Rank 1 cannot write: every rank stops with the same message, and the earlier checkpoint is
    whole.
    """
    outcomes = damaged.attempt(Kill(1, 0, "disk"))
    assert sorted("SystemExit: 3" in str(outcome.error) for outcome in outcomes) == [False, True], (
        "one rank tells"
    )
    assert (
        "No space left on device; the run can be resumed from step 2" in damaged.run.status.message
    )
    assert damaged.run.status.exit_code == 3 and not list(damaged.run.checkpoints.glob(".step-*"))
    damaged.finish()


def test_a_full_disk_while_the_results_are_written(workplace: Workplace, tmp_path: Path) -> None:
    """The last step is in a checkpoint by then: nothing is trained again."""
    started = start_run(workplace, tmp_path, world_size=1, save_steps=None)
    started.attempt(Kill(0, 7, "disk"))  # a save has seven operations
    status = started.run.status
    assert (status.state, status.exit_code) == ("failed", 3)
    assert "the results cannot be written" in status.message and "free disk space" in status.message
    assert "No space left on device; every step is in its newest checkpoint" in status.message
    measured = started.run.metrics.read_bytes()
    assert len(metrics(started)) == 6
    started.finish()
    assert "resuming from checkpoint step 6" in (started.run.attempt / "log.txt").read_text()
    assert started.run.metrics.read_bytes() == measured


def test_a_lost_rank_takes_the_others_with_it(damaged: Started) -> None:
    outcomes = damaged.attempt(Kill(1, 1, "rank"))
    assert [outcome.exit_code for outcome in outcomes] == [1, -9]
    assert damaged.run.status.message == "another rank of this run ended"
    damaged.finish()


def test_a_second_trainer_is_refused_and_changes_nothing(damaged: Started) -> None:
    with FileLock(damaged.run.path / ".trainer.lock"):
        outcomes = damaged.attempt()
    assert "UsageError" in outcomes[0].error and "another process is training" in outcomes[0].error
    assert "SystemExit: 2" in outcomes[1].error and damaged.run.status.state == "created"
    damaged.finish()


def test_a_fixed_tail_trains_a_short_last_batch(workplace: Workplace, tmp_path: Path) -> None:
    overrides = (
        "optimizer.max_steps=null",
        "optimizer.epochs=1",
        "global_batch_size=20",
        "ledger={U9: fixed}",
    )
    reference = "reference={gpus: 2, per_device_batch_size: 10, grad_accum_steps: 1}"
    started = start_run(
        workplace, tmp_path, *overrides, reference, world_size=2, deterministic=True
    )
    started.finish()
    assert [line["samples"] for line in metrics(started)] == [20, 20, 8]  # of 48
    fed = [
        sample for line in read_jsonl(started.run.path / "feed.jsonl") for sample in line["samples"]
    ]
    assert len(fed) == len(set(fed)) == 48
