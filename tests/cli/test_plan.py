"""`densekit plan`: its output for people and for programs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.files import names, write_json
from tests.support.launching import entry

IMPORTED = """
import sys
from densekit.cli import main
sys.argv = ["densekit", "plan", "vicuna7b_stage2"]
try:
    main()
finally:
    print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_plan(run_cli: Cli) -> None:
    planned = json.loads(
        run_cli("plan", "vicuna7b_clip_stage2", "--gpus", "8", "--micro-batch", "4", "--json").out
    )
    assert (planned["steps"], planned["samples_repeated"], planned["gpus"]) == (5198, 46, 8)
    assert planned["micro_batches"] == [[4, 4, 4, 4]] * 8
    result = run_cli("plan", "vicuna7b_clip_stage1")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("vicuna7b_clip_stage1 on 8 x a100-40g\n")
    verdict = result.out.splitlines()[-1]
    assert re.fullmatch(r"fits: [\d.]+ GiB on each of 8 x a100-40g; [\d.]+ to .* hours", verdict)
    assert re.search(
        r"^  steps +2181 over 558128 samples; 208 samples repeated, 0 dropped$",
        result.out,
        re.MULTILINE,
    )
    assert "what fits, fewest GPU-hours first (ratio: of the geometric means" in result.out
    assert "note: " in run_cli("plan", "vicuna7b_clip_stage1", "--why").out


@pytest.mark.parametrize("recipe", ["tiny_stage2", "vicuna7b_clip_stage2"])
def test_printed_parts_add_up_to_the_total(run_cli: Cli, recipe: str) -> None:
    for hardware in ([], ["--device", "cpu"], ["--gpu", "h200"]):
        out = run_cli("plan", recipe, *hardware, "--why").out
        for name in ("memory", "disk"):
            (line,) = re.findall(rf"^  {name} +([\d.]+) GiB[^:\n]*(?:: (.*))?$", out, re.MULTILINE)
            total, parts = line
            if parts:
                tenths = [10 * float(part.rpartition(" ")[2]) for part in parts.split(", ")]
                assert sum(map(round, tenths)) == round(10 * float(total)), out


def test_figures_have_no_more_than_three_digits(run_cli: Cli) -> None:
    table = run_cli("plan", "vicuna7b_clip_stage2", "--why").out.partition("what fits")[2]
    assert max(map(len, table.splitlines())) <= 80
    assert re.search(r"  158 to 639 ", table) and not re.search(r"to \d{3,}\.\d", table)


def test_exit_code_says_whether_the_plan_fits(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densekit.planner.rules.host_memory", lambda: 24 * 2**30)
    on_cpu = ("plan", "vicuna7b_clip_stage2", "--device", "cpu")
    small = ("plan", "vicuna7b_clip_stage2", "--gpu", "rtx4090", "--gpus", "4")
    for arguments in (on_cpu, (*small, "--micro-batch", "1")):
        result = run_cli(*arguments)
        assert result.code == 1 and "\ndoes NOT fit: " in result.out, arguments
        assert run_cli(*arguments, "--json").code == 1
    assert "rarely" not in run_cli(*on_cpu).out
    nowhere = run_cli(*small)
    assert (nowhere.code, nowhere.out) == (2, "") and "what fits: " in nowhere.err
    unknown = run_cli("plan", "vicuna7b_clip_stage2", "--device", "cuda", "--gpus", "8")
    assert unknown.code == 0
    text = " ".join(run_cli("plan", "--help").out.split())
    assert "Exit code 1: the plan is printed, and it does not fit" in text


PLAN_KEYS = {
    "recipe",
    "gpu",
    "gpus",
    "nodes",
    "micro_batch_size",
    "grad_accum_steps",
    "micro_batches",
    "global_batch_size",
    "steps",
    "samples_dropped",
    "samples_repeated",
    "certificate_sha256",
    "image",
    "attention",
    "dtype",
    "zero_stage",
    "checkpointing",
    "memory_gib",
    "fits",
    "hours",
    "disk_gib",
    "notes",
}


@pytest.mark.parametrize("recipe", ["tiny_stage2", "vicuna7b_clip_stage2"])
def test_plan_for_programs(run_cli: Cli, recipe: str) -> None:
    planned = json.loads(run_cli("plan", recipe, "--json").out)
    assert planned.keys() >= PLAN_KEYS
    assert planned["fits"] is True and planned["memory_gib"]["peak"] > 0 and planned["disk_gib"] > 0
    parts = {
        name: size for name, size in planned["memory_gib"].items() if name not in ("peak", "host")
    }
    assert sum(parts.values()) == pytest.approx(
        planned["memory_gib"]["peak"], abs=0.005 * (len(parts) + 1)
    )


def test_plan_with_a_price_and_the_arithmetic(run_cli: Cli) -> None:
    wanted = ("plan", "vicuna7b_clip_stage2", "--gpu", "h200", "--gpus", "4", "--price", "2.5")
    planned = json.loads(run_cli(*wanted, "--json").out)
    assert (planned["gpu"], planned["gpus"], planned["nodes"]) == ("h200-141g", 4, 1)
    for end in ("low", "high"):
        assert planned["cost"][end] == pytest.approx(planned["hours"][end] * 4 * 2.5, rel=0.01)
    assert "alternatives" not in planned and "why" not in planned
    result = run_cli(*wanted, "--why").out
    for subject in ("candidates", "memory", "time", "disk"):
        assert f"why, {subject}:\n" in result
    assert (
        re.search(r"^  cost +\d+(\.\d)? to \d+(\.\d)?$", result, re.MULTILINE)
        and "what fits" not in result
    )


def test_plan_of_a_single_step(run_cli: Cli) -> None:
    result = run_cli("plan", "vicuna7b_clip_stage1", "--set", "optimizer.max_steps=1").out
    assert "hours        0.000" in result and "what fits, fewest GPU-hours first" in result


def test_plan_reports_the_papers_scores_of_an_unchanged_recipe(run_cli: Cli) -> None:
    row = ("plan", "vicuna7b_clip_stage2", "--gpu", "h200")
    assert "reported     GQA 63.8, " in run_cli(*row).out
    assert json.loads(run_cli(*row, "--json").out)["reported"]["GQA"] == 63.8
    assert "reported" not in run_cli(*row, "--set", "optimizer.learning_rate=0.1").out


def test_plan_lists_alternatives_by_gpu_hours(run_cli: Cli) -> None:
    planned = json.loads(run_cli("plan", "vicuna7b_clip_stage2", "--json").out)
    found = planned["alternatives"]
    spent = [(one["gpu_hours"]["low"] * one["gpu_hours"]["high"]) ** 0.5 for one in found]
    assert spent == sorted(spent) and len({one["gpu"] for one in found}) >= 5
    assert any((one["gpu"], one["gpus"]) == ("a100-40g", 8) for one in found)
    one = found[0]
    again = run_cli(
        "plan", "vicuna7b_clip_stage2", "--gpu", one["gpu"], "--gpus", one["gpus"], "--json"
    )
    assert json.loads(again.out)["hours"] == one["hours"]


def test_plan_counts_the_entries_of_an_annotation_file(run_cli: Cli, tmp_path: Path) -> None:
    text = "extends: tiny_stage1\ndata: {annotations: 'data:a.json', samples: null}\n"
    recipe = write_json(tmp_path / "mine.yaml", text)
    assert json.loads(run_cli("plan", recipe, "--json").out)["steps"] is None
    write_json(tmp_path / "elsewhere" / "a.json", [entry()] * 40)
    planned = json.loads(run_cli("plan", recipe, "--data-dir", "elsewhere", "--json").out)
    assert (planned["num_samples"], planned["steps"]) == (40, 3)
    write_json(tmp_path / "elsewhere" / "a.json", "[")
    result = run_cli("plan", recipe, "--data-dir", "elsewhere")
    assert result.code == 3 and "a.json: line 1, column 2: broken JSON" in result.err


def test_plan_and_show_write_nothing(run_cli: Cli, tmp_path: Path) -> None:
    for arguments in (["recipes"], ["show", "tiny_stage2"], ["plan", "tiny_stage2"]):
        assert run_cli(*arguments).code == 0
    assert names(tmp_path) == []


@pytest.mark.ranks
def test_a_plan_waits_for_no_package_that_computes(tmp_path: Path) -> None:
    """numpy alone takes a tenth of a second, `plan` half of one."""
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "fits: " in done.stdout
    assert "pydantic" in done.stderr
    assert not {"numpy", "torch", "transformers", "tokenizers"} & set(done.stderr.split())
