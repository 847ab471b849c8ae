"""The benchmarks at their smallest: every side computes the same, and every figure is there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).resolve().parents[2]


def test_both_sides_train_the_same_model() -> None:
    command = [
        sys.executable,
        "benchmarks/train_step.py",
        "--size",
        "tiny",
        "--steps",
        "1",
        "--json",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert 0 < result["images"] < result["samples"]
    assert result["supervised_tokens"] < result["tokens"] < result["padded_tokens"]
    assert set(result["stages"]) == {"1", "2"}
    for stage in result["stages"].values():
        assert stage["gradient_difference"] <= 1e-5
        for figure in ("seconds", "peak_bytes"):
            assert set(stage[figure]) == {"densekit", "padded", "alone"}
            assert min(stage[figure].values()) > 0
        for ratio in ("time_ratio", "memory_ratio"):
            assert set(stage[ratio]) == {"padded", "alone"} and min(stage[ratio].values()) > 0


def test_saves_in_the_foreground_and_background_are_timed() -> None:
    size = ["--megabytes", "12", "--steps", "2", "--rounds", "1", "--json"]
    command = [sys.executable, "benchmarks/save.py", *size]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert 12 < result["megabytes"] < 14
    assert result["stands"]["none"] < min(result["stands"][kind] for kind in result["lost"])


def test_attention_kernels_are_compared_and_timed() -> None:
    shape = [
        "--samples",
        "3",
        "--longest",
        "40",
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--head-dim",
        "16",
    ]
    command = [
        sys.executable,
        "benchmarks/attention.py",
        "--device",
        "cpu",
        "--steps",
        "1",
        "--json",
        *shape,
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert len(result["lengths"]) == 3 and max(result["lengths"]) == 40
    assert set(result["seconds"]) == set(result["ratio"]) == {"sdpa", "padded"}
    assert result["ratio"]["sdpa"] == 1.0 and result["ratio"]["padded"] > 0
    assert set(result["not_here"]) == {"flash", "xformers"}
    assert all("runs on CUDA only" in reason for reason in result["not_here"].values())


@pytest.mark.slow
def test_the_memory_model_is_compared_with_a_traced_step() -> None:
    command = [
        sys.executable,
        "benchmarks/memory.py",
        "--recipe",
        "tiny_stage1",
        "--samples",
        "1",
        "--json",
    ]
    done = subprocess.run(
        [*command, "--only", "half checkpointing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = json.loads(done.stdout)["results"]
    assert result["name"] == "tiny_stage1 half checkpointing"
    assert result["off"] == []
    assert {
        "weights",
        "gradients",
        "optimizer",
        "tower",
        "language model",
        "logits",
        "peak",
    } <= result["figures"].keys()
    assert all(values["traced"] > 0 for values in result["figures"].values())
    nothing = subprocess.run(
        [*command, "--only", "no such case"],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert nothing.returncode == 1


def _figures(*command: str) -> Any:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_index_is_compared_with_json(tmp_path: Path) -> None:
    found = _figures(
        "benchmarks/index.py",
        "--entries",
        "300",
        "--repeat",
        "1",
        "--folder",
        str(tmp_path / "made"),
    )
    assert found["json"]["entries"] == found["compare"]["entries"] == found["entries"] == 300
    assert found["compare"]["different"] == 0
    assert set(found["check"][1]["checks"].values()) == {"ok"}
    assert len(found["ranks"]) == 2 and not (tmp_path / "made").exists()


def test_a_folder_that_is_there_is_refused_and_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/index.py", "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2 and tmp_path.is_dir()
    assert f"--folder {tmp_path}: File exists; give one that can be made" in done.stderr


def test_the_host_of_a_rank_is_timed_in_worlds_of_any_size() -> None:
    found = _figures("benchmarks/ranks.py", "--steps", "1", "--batch", "16")
    assert [each["world_size"] for each in found] == [8, 32, 128, 512]
    assert all(each["collectives_of_the_feed"] == {"all_gather": 1} for each in found)
    assert all(min(each["read_first_ms"], each["gather_ms"]) > 0 for each in found)


def test_the_input_of_a_worker_is_timed() -> None:
    found = _figures("benchmarks/input.py", "--images", "2", "--repeat", "1")
    assert all(each["ratio_to_floor"] > 0 for name, each in found["images"].items() if "," in name)
    assert found["stage1_8_gpus"]["samples_per_second"] == pytest.approx(88.6, abs=0.1)
