"""Runs by path, by name and by the beginning of their name."""

import os
import re
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.runs.find import find_run

RUNS = [
    "tiny_stage1-0123456789",
    "tiny_stage2-1111111111",
    "tiny_stage2-1111111111.old1",
    "tiny_stage2-1111111111.replay1",
    "tiny_stage2_lora-2222222222",
    "ablation-aaaaaaaaaa",
    "ablation-bbbbbbbbbb",
    "my-recipe-3333333333",
]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, each changed a minute after the one before it, and a folder that is none."""
    folder = tmp_path / "runs"
    for minute, name in enumerate(RUNS):
        for file in ("math.json", "status.json"):
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}", encoding="utf-8")
            os.utime(path, (minute * 60, minute * 60))
    (folder / "tiny_notes").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs/tiny_stage1-0123456789", "tiny_stage1-0123456789"),
        ("tiny_stage1-0123456789", "tiny_stage1-0123456789"),
        ("tiny_stage2", "tiny_stage2-1111111111"),
        ("tiny_stage2-11", "tiny_stage2-1111111111"),
        ("tiny_stage2-1111111111.r", "tiny_stage2-1111111111.replay1"),
        ("tiny_stage2_", "tiny_stage2_lora-2222222222"),
        ("ablation-b", "ablation-bbbbbbbbbb"),
        ("my", "my-recipe-3333333333"),
        ("my-recipe", "my-recipe-3333333333"),
    ],
)
def test_run_is_found_by_path_name_and_prefix(runs: Path, name: str, found: str) -> None:
    assert find_run(name, runs) == runs / found


def test_absolute_path_and_other_folder(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs" / RUNS[0]
    assert find_run(str(path), tmp_path / "elsewhere") == path


def test_ambiguous_name_lists_candidates_newest_first(runs: Path) -> None:
    message = "ablation means 2 runs in runs, the newest first: ablation-bbbbbbbbbb, ablation-aaaa"
    with pytest.raises(UsageError, match=message):
        find_run("ablation", runs)
    with pytest.raises(UsageError, match="tiny_s means 3 runs in runs, the newest first: tiny_st"):
        find_run("tiny_s", runs)


def test_many_candidates_are_counted(runs: Path) -> None:
    for number in range(12):
        folder = runs / f"sweep-{number:010d}"
        folder.mkdir()
        (folder / "math.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"sweep means 12 runs .* and 2 more; give one of these"):
        find_run("sweep", runs)


@pytest.mark.parametrize("name", ["nope", "tiny_notes", "tiny_stage2-12"])
def test_unknown_name_is_refused(runs: Path, name: str) -> None:
    message = re.escape(f"no run {name} in runs; `densekit ls` lists the runs")
    with pytest.raises(DataError, match=message):
        find_run(name, runs)


@pytest.mark.parametrize("name", ["runs", "runs/nope", "/nope"])
def test_other_paths_are_left_to_the_command(runs: Path, name: str) -> None:
    assert find_run(name, runs) == Path(name)


def test_no_name_is_no_run(runs: Path) -> None:
    with pytest.raises(UsageError, match="named by nothing"):
        find_run("", runs)
