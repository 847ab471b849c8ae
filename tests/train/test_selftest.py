"""What the start-up self-test says about GPUs of every age, in every image."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from densekit.spec.capability import has_code_for
from densekit.spec.kernels import KernelPackage
from densekit.train import selftest
from densekit.train.selftest import wrong_device

TORCH_2_7 = [
    "sm_50",
    "sm_60",
    "sm_70",
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_90",
]  # as the wheels of the images have them
TORCH_2_8 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((7, 0), TORCH_2_7, True),
        ((7, 0), ["sm_75", "sm_80"], False),  # torch's newer builds: no code for V100
        ((8, 9), ["sm_80", "sm_86"], True),  # code for a lower minor version runs
        ((8, 0), ["sm_86"], False),
        ((10, 0), TORCH_2_8, True),
        ((10, 0), ["sm_90", "compute_90"], False),  # only through the driver's compiler
        ((9, 0), [], False),
    ],
)
def test_machine_code_runs_on_newer_minor_versions(
    capability: tuple[int, int], archs: Sequence[str], runs: bool
) -> None:
    assert has_code_for(capability, archs) is runs


@pytest.mark.parametrize(
    ("target", "capability", "archs", "says"),
    [
        ("a100", (8, 0), TORCH_2_8, None),
        ("a100", (9, 0), TORCH_2_8, None),
        (
            "a100",
            (7, 0),
            TORCH_2_8,
            "use the v100 image",
        ),  # torch has code for it, flash-attn has not
        ("v100", (7, 0), TORCH_2_7, None),
        ("v100", (10, 0), TORCH_2_7, "use the a100 image"),
        ("v100", (6, 1), TORCH_2_7, "older than V100"),
        (None, (8, 0), ["sm_90"], "code for sm_90 only"),
    ],
)
def test_container_image_fits_the_gpu(
    target: str | None, capability: tuple[int, int], archs: Sequence[str], says: str | None
) -> None:
    problem = wrong_device(capability, archs, target)
    assert problem is None if says is None else problem is not None and says in problem


def pretend(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], archs: str, count: int = 2
) -> None:
    """A torch built for `archs` that sees GPUs of one capability, on which nothing is computed."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: archs, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "Pretend GPU")
    monkeypatch.setattr(selftest, "_matmul_problem", lambda index: None)


def kernel_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelPackage, "installed", True)
    monkeypatch.setattr(selftest, "_import_problem", lambda name: None)
    monkeypatch.setattr(selftest, "_kernel_problem", lambda kernel, capability: None)
    monkeypatch.setattr(selftest, "version", lambda name: "1")


def test_v100_in_its_image_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEKIT_TARGET", "v100")
    pretend(monkeypatch, (7, 0), " ".join(TORCH_2_7))
    kernel_found(monkeypatch)
    lines = selftest.selftest()
    assert [line.state for line in lines] == ["ok"] * len(lines)
    assert lines[-1].message.endswith("--device cuda --gpus 2 --dtype fp16 --attention xformers")


def test_v100_in_the_a100_image_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEKIT_TARGET", "a100")
    pretend(monkeypatch, (7, 0), " ".join(TORCH_2_8), count=1)
    kernel_found(monkeypatch)
    lines = selftest.selftest()
    assert {line.name: line.state for line in lines}["GPU 0"] == "fail"
    assert lines[-1].state == "fail"


def test_kernel_import_error_fails_only_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU it is a failure; without one it may be the driver that is missing."""
    monkeypatch.setattr(KernelPackage, "installed", True)
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # import raises
    without = selftest._attention([], "a100")
    on_gpu = selftest._attention([(8, 0)], "a100")
    assert (without.state, on_gpu.state) == ("warn", "fail")


def test_a_kernel_that_does_not_compute_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package imports; its machine code is of another torch."""
    monkeypatch.setenv("DENSEKIT_TARGET", "v100")
    pretend(monkeypatch, (7, 0), " ".join(TORCH_2_7))
    kernel_found(monkeypatch)
    monkeypatch.setattr(selftest, "_kernel_problem", lambda kernel, capability: f"{kernel}: no")
    line = selftest._attention([(7, 0)], "v100")
    assert (line.state, line.message) == ("fail", "xformers: no")


def run(target: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DENSEKIT_TARGET"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | ({"DENSEKIT_TARGET": target} if target else {})
    command = [sys.executable, "-m", "densekit", "selftest", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False
    )


@pytest.mark.ranks
def test_cpu_image_is_ready() -> None:
    done = run("cpu")
    assert done.returncode == 0, done.stderr
    assert "ready to train on the CPU" in done.stdout
    assert len(done.stdout.splitlines()) <= 20


@pytest.mark.ranks
def test_gpu_image_without_its_kernel_fails() -> None:
    done = run("v100", "--json")
    found = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert done.returncode == 1 and found["ok"] is False
    assert checks["attention"]["state"] == "fail"
    assert "not installed" in checks["attention"]["message"]
    assert checks["GPU"]["state"] == "warn"
