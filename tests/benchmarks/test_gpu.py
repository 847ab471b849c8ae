"""`make gpu` at tiny size on the CPU, so that it runs where a GPU is lent for ten minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).resolve().parents[2]


def run_gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    return subprocess.run(
        [sys.executable, "-m", "gpu", "--device", "cpu", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


def test_every_part_but_parity_is_ok_on_a_cpu(tmp_path: Path) -> None:
    parts = ["environment", "kernels", "devices", "stage1", "lora", "full"]
    done = run_gpu("--json", "--out", str(tmp_path), "--parts", *parts)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["ok"] and list(result["parts"]) == parts
    assert result["parts"]["environment"]["missing"] == {}
    for what in ("stage1", "lora", "full"):
        step = result["parts"][what]
        assert step["step_seconds"] > 0 < step["tflops_per_second"]
        assert all(loss is not None for loss in step["losses"])
        assert result["parts"]["devices"]["stages"][what]["relative_difference"] == 0
    (page,) = tmp_path.glob("gpu_cpu_*.md")
    assert "stage1       ok" in page.read_text(encoding="utf-8")


def test_broken_part_fails_and_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu.__main__ as program

    monkeypatch.setattr(program.sys, "executable", "false")
    result = program.run_all("cpu", ["environment", "lora"], lambda text: None)
    assert not result["ok"]
    assert [part["error"][:11] for part in result["parts"].values()] == ["exit code 1"] * 2
