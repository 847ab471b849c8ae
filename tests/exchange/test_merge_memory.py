"""A merge streams: its peak of host RAM stays under the largest shard, the adapters and 1 GiB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def benchmark(*options: str) -> list[str]:
    command = [sys.executable, "benchmarks/merge_memory.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_two_shards_of_a_34b_model_are_merged_within_the_bound(dtype: str, tmp_path: Path) -> None:
    found = json.loads(benchmark("--dtype", dtype, "--folder", str(tmp_path))[-1])
    assert found["files"] == 2 and found["smallest_written_gb"] > 1
    assert found["peak_gib"] <= found["bound_gib"], found


def test_all_of_a_34b_model_is_planned_without_memory(tmp_path: Path) -> None:
    *shards, total, peak = benchmark("--layers", "60", "--dry-run", "--folder", str(tmp_path))
    assert len(shards) == 15
    assert "137.56 GB of the language model would be written" in total  # 34.4 billion in fp32
    assert json.loads(peak)["peak_gib"] < 1
