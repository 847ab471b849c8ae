"""`make gpu` at tiny size on the CPU, so that it runs where a GPU is lent for ten minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.ranks


PARTS = ["environment", "kernels", "devices", "stage1", "lora", "full", "stock"]
"""All but parity, which has tests of its own."""


@pytest.fixture
def program() -> ModuleType:
    import gpu.__main__ as program

    return program


def fork_part(name: str, device: str) -> dict[str, Any]:
    """A part on a rank of the fork server, which has imported torch."""
    from gpu.__main__ import run_part

    return run_part(name, device)


def test_every_part_but_parity_is_ok_on_a_cpu(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        program,
        "run_in_process",
        lambda name, device, seconds: run_ranks(1, fork_part, name, device)[0].returned,
    )
    kept: list[dict[str, Any]] = []
    result = program.run_all("cpu", PARTS, lambda text: None, kept.append)
    assert result["ok"], result
    assert len(kept) == len(PARTS) and not any(half["ok"] for half in kept[:-1])
    assert list(result["parts"]) == PARTS
    assert result["parts"]["environment"]["missing"] == {}
    for what in ("stage1", "lora", "full"):
        step = result["parts"][what]
        assert step["step_seconds"] >= step["compute_seconds"] > 0 < step["tflops_per_second"]
        assert step["data_seconds"] >= 0 and "mfu" not in step, "a CPU's peak is not known"
        assert len(step["profile"]["top"]) == 10
        shares = [row["share"] for row in step["profile"]["top"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) <= 1
        assert 0 < step["profile"]["busy_share"] <= 1
        assert all(loss is not None for loss in step["losses"])
        assert result["parts"]["devices"]["stages"][what]["relative_difference"] == 0
        beside = result["parts"]["stock"]["stages"][what]
        assert beside["gradient_difference"] <= 1e-5
        assert beside["tokens"] <= beside["padded_tokens"]
        assert set(beside["time_ratio"]) == {"padded", "padding_free"}
    page = program.write(result, tmp_path).with_suffix(".md").read_text(encoding="utf-8")
    assert "stage1       ok" in page and "of padding-free (sdpa)" in page
    assert "aten::" in page and " gaps of " in page


def test_the_command_runs_a_part_in_its_own_process_and_writes_the_result(tmp_path: Path) -> None:
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    command = [sys.executable, "-m", "gpu", "--device", "cpu", "--json", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--parts", "environment"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert json.loads(done.stdout)["parts"]["environment"]["ok"]
    assert len(list(tmp_path.glob("gpu_cpu_*"))) == 2


def test_broken_part_fails_and_leaves_the_others(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program.sys, "executable", "false")
    result = program.run_all("cpu", ["environment", "lora"], lambda text: None, lambda result: None)
    assert not result["ok"]
    assert [part["error"][:11] for part in result["parts"].values()] == ["exit code 1"] * 2
