"""`densekit doctor`: what it says about GPUs, the container engine, memory, disk and inputs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import densekit
from densekit.launch.doctor import doctor
from densekit.launch.launchers.docker.client import Engine
from densekit.launch.launchers.registry import launcher_class, launcher_names
from densekit.spec.check import Check
from densekit.spec.roots import Roots
from tests.support.files import names
from tests.support.launching import A100, T4, cards, put_gpus_on_path

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("bare_host")]

PAPER = "vicuna7b_clip_stage2"


def states(checks: Sequence[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_bare_host_trains_tiny_recipes_only(tmp_path: Path) -> None:
    found = states(doctor("tiny_stage2", Roots(), tmp_path / "runs"))
    assert found["engine"] == "warn" and found["GPUs"] == "ok" and "fail" not in found.values()
    assert {"packages", "shm", "disk", "Slurm", "tiny_stage1", "tiny_stage2"} <= found.keys()
    missing = states(doctor(PAPER, Roots(), tmp_path))
    assert missing[f"{PAPER}: language model"] == "fail", "its models are not here"
    assert names(tmp_path) == []


def test_every_launcher_has_its_lines(tmp_path: Path) -> None:
    found = [check.name for check in doctor(None, Roots(), tmp_path)]
    for name in launcher_names():
        lines = [check.name for check in launcher_class(name).diagnose([], tiny=False)]
        assert lines and set(lines) <= set(found)


def test_gpu_host_needs_idle_gpus_a_driver_and_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 2, used={1: 60000}))
    checks = {check.name: check for check in doctor(None, Roots(), tmp_path)}
    found = tuple(checks[name].state for name in ("GPUs", "driver", "engine"))
    assert found == ("warn", "ok", "fail")
    assert "in use: 1" in checks["GPUs"].message
    assert "start one (`sudo systemctl start docker`)" in checks["engine"].message
    put_gpus_on_path(monkeypatch, tmp_path / "b", cards(A100, 1)[0].replace("550.54.15", "470.1"))
    assert states(doctor(None, Roots(), tmp_path))["driver"] == "fail"


def test_memory_of_a_paper_recipe_is_compared_with_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(recipe: str, *lines: str) -> Check:
        put_gpus_on_path(monkeypatch, tmp_path / recipe, *lines)
        return next(check for check in doctor(recipe, Roots(), tmp_path) if check.name == "memory")

    fits = memory(PAPER, *cards(A100, 8))
    assert fits.state == "ok"
    assert re.match(
        r"fits on 8 x NVIDIA A100-SXM4-80GB, 80 GiB: vicuna7b_clip_stage1 [\d.]+ GiB, ",
        fits.message,
    )
    small = memory("llama3_70b_stage2_lora", *cards(T4.replace("7.5", "8.0"), 1))
    assert small.state == "fail" and "does not fit" in small.message
    assert "memory" not in states(doctor("tiny_stage2", Roots(), tmp_path))


class StubClient:
    """An engine as doctor asks it: with or without the toolkit, with an image of some version."""

    def __init__(self, runtimes: dict[str, Any], version: str) -> None:
        self.runtimes = runtimes
        self.labels = {"org.opencontainers.image.version": version}
        self.images, self.id = self, "sha256:x"

    def info(self) -> dict[str, Any]:
        return {"Runtimes": self.runtimes}

    def version(self) -> dict[str, str]:
        return {"Version": "28"}

    def get(self, name: str) -> "StubClient":
        return self


@pytest.mark.parametrize(
    ("runtimes", "version", "gpu", "toolkit", "image"),
    [
        ({}, densekit.__version__, A100, "fail", "ok"),
        ({"nvidia": {}}, "0.0.9", A100, "ok", "warn"),
        ({"nvidia": {}}, densekit.__version__, T4, "ok", "fail"),
    ],
)
def test_engine_lacks_the_toolkit_or_a_fitting_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtimes: dict[str, Any],
    version: str,
    gpu: str,
    toolkit: str,
    image: str,
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(gpu, 1))
    monkeypatch.setattr(
        "densekit.launch.launchers.docker.diagnosis.connect",
        lambda: Engine(StubClient(runtimes, version)),
    )
    found = states(doctor(None, Roots(), tmp_path))
    assert (found["toolkit"], found["image"]) == (toolkit, image)
