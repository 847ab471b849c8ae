"""`densekit doctor` where it looks at no GPU: disk from the plan, hardware that is elsewhere."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from densekit.launch.chain import load_chain
from densekit.launch.checks.disk import disk_checks
from densekit.launch.doctor import Elsewhere, doctor
from densekit.spec.check import Check
from densekit.spec.hardware import GIB, hardware
from densekit.spec.roots import Roots
from tests.support.needs import needs

PAPER = "vicuna7b_clip_stage2"


def told(checks: list[Check], name: str) -> list[str]:
    return [check.message for check in checks if check.name == name and check.state == "fail"]


def test_hardware_elsewhere_is_planned_for_and_this_host_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densekit.launch.doctor.find_gpus", lambda: pytest.fail("looked"))
    roots = Roots(models=tmp_path, data=tmp_path, cache=tmp_path)
    fits = doctor(
        PAPER, roots, tmp_path, elsewhere=Elsewhere(kind=hardware("a100-80g"), world_size=8)
    )
    assert fits[0].message.startswith("8 x a100-80g, as asked")
    assert [check.state for check in fits if check.name == "memory"] == ["ok"]
    small = Elsewhere(kind=hardware("v100-16g"), world_size=1)
    (refused,) = told(doctor(PAPER, roots, tmp_path, elsewhere=small), "memory")
    assert "--gpu v100-16g --gpus 1: vicuna7b_clip_stage1 does not fit" in refused


def test_everything_missing_is_named_at_once_with_the_command_that_gets_it(tmp_path: Path) -> None:
    roots = Roots(models=tmp_path, data=tmp_path, cache=tmp_path)
    elsewhere = Elsewhere(kind=hardware("a100-80g"), world_size=8)
    checks = doctor(PAPER, roots, tmp_path, elsewhere=elsewhere)
    for subject in ("language model", "vision tower", "annotations"):
        (message,) = told(checks, f"{PAPER}: {subject}")
        folders = f"--data-dir {tmp_path} --models-dir {tmp_path}"
        assert f"`densekit fetch {PAPER} {folders}` gets what is missing" in message


def test_the_disk_is_compared_with_what_the_plan_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = Roots(models=tmp_path, data=tmp_path, cache=tmp_path)

    def state(name: str, free_gib: float) -> str:
        usage = SimpleNamespace(free=int(free_gib * GIB))
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
        (check,) = disk_checks(load_chain(name, ()), roots, tmp_path / "runs")
        return check.state

    assert state("tiny_stage2", 0.1) == "ok", "eight pictures need no 5 GiB"
    assert (state(PAPER, 100), state(PAPER, 1000)) == ("fail", "ok")


def test_disks_are_told_apart(tmp_path: Path) -> None:
    """What is missing counts where it will be put."""
    roots = Roots(models=Path("/dev/shm/models"), data=tmp_path, cache=tmp_path)
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        needs("two-disks", "the temporary folder is on the disk of /dev/shm")
    checks = disk_checks(load_chain(PAPER, ()), roots, tmp_path / "runs")
    assert len(checks) == 2 and "/dev/shm/models" in checks[1].message
