"""`densekit compare`, `verdict`, `power` and `calibrate`: what they print, and their exit codes."""

import json
from pathlib import Path

import pytest

from densekit.runs.verdicts import VERDICT_FILE, read_verdict
from tests.evaluate.scored_runs import drawn, evaluated, made_run
from tests.support.command_line import Cli

DCI, NONE = "vicuna7b_clip_stage2", "vicuna7b_clip_none_stage2"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of each of two recipes, with answers to GQA."""
    for recipe, share in ((DCI, 0.72), (NONE, 0.60)):
        for seed in range(2):
            run = made_run(tmp_path, recipe, seed=seed)
            evaluated(run, drawn(share, seed=seed + len(recipe)))
    return tmp_path


def test_compare(run_cli: Cli, runs: Path) -> None:
    found = run_cli("compare", DCI, NONE, "--runs-dir", runs)
    assert found.code == 0 and found.err == ""
    lines = found.out.splitlines()
    assert lines[0] == f"{DCI} better than {NONE}? (2 runs against 2)"
    assert lines[1].split() == [
        "A",
        "B",
        "A",
        "-",
        "B",
        "95",
        "%",
        "interval",
        "p",
        "(Holm)",
        "claim",
    ]
    assert lines[2].startswith("GQA  ")
    assert "from 2 seeds of A, 2 seeds of B; question sd" in lines[3]
    value = json.loads(run_cli("compare", DCI, NONE, "--runs-dir", runs, "--json").out)
    assert (value["recipe"], value["baseline"], len(value["runs"])) == (DCI, NONE, 2)
    (line,) = value["lines"]
    assert f"{line['difference']:+.2f}" in lines[2] and line["claim"] in lines[2]


def test_single_runs_by_name_and_comma(run_cli: Cli, runs: Path) -> None:
    names = sorted(path.name for path in runs.iterdir())
    a = [name for name in names if name.startswith(f"{DCI}-")]
    found = run_cli("compare", f"{a[0]},{a[1]}", NONE, "--runs-dir", runs)
    assert found.code == 0 and "(2 runs against 2)" in found.out
    one = run_cli("compare", runs / a[0], NONE, "--runs-dir", runs)
    assert "(1 run against 2)" in one.out and "from 2 seeds of B" in one.out
    assert run_cli("compare", ",", NONE, "--runs-dir", runs).code == 2
    assert run_cli("compare", "nothing", NONE, "--runs-dir", runs).code == 3
    assert run_cli("compare", DCI, DCI, "--runs-dir", runs).code == 2


def test_verdict_is_printed_and_stored(run_cli: Cli, runs: Path) -> None:
    found = run_cli("verdict", DCI, "--runs-dir", runs)
    assert found.code == 0 and found.out.startswith(f"{DCI}: 2 runs\n")
    assert "UNCALIBRATED" in found.out and "seed sd" not in found.out
    everything = run_cli("verdict", DCI, "--why", "--runs-dir", runs).out.splitlines()
    for line in found.out.splitlines():
        if not line.startswith(("with --why: ", "note: ")):
            assert any(each.startswith(line) for each in everything), "--why only adds"
    assert any("seed sd" in line for line in everything)
    assert any(line.endswith("not evaluated") for line in everything)
    assert f"The paper's baseline is {NONE}: --baseline RUN,... tests the gain" in found.out
    (first, second) = runs.glob(f"{DCI}-*/{VERDICT_FILE}")
    assert first.read_bytes() == second.read_bytes()
    stored = read_verdict(first.parent)
    assert stored is not None and stored.word == "UNCALIBRATED"
    listed = json.loads(run_cli("recipes", "--json", "--runs-dir", runs).out)
    assert {row["name"]: row["here"] for row in listed}[DCI] == "UNCALIBRATED"


def test_a_contradicted_claim_exits_1(run_cli: Cli, runs: Path) -> None:
    for seed in range(2, 4):
        for recipe, share in ((DCI, 0.72), (NONE, 0.60)):
            run = made_run(runs, recipe, seed=seed)
            evaluated(run, drawn(share, seed=seed + len(recipe)))
    found = run_cli("verdict", NONE, "--baseline", DCI, "--runs-dir", runs, "--json")
    value = json.loads(found.out)
    assert [line["claim"] for line in value["gains"]["lines"]] == ["CONTRADICTED"]
    assert found.code == 1
    gained = run_cli("verdict", DCI, "--baseline", NONE, "--runs-dir", runs)
    assert gained.code == 0
    assert gained.out.splitlines()[-1].endswith(f"; better than {NONE}: 1 SUPPORTED")


def test_a_run_of_which_nothing_is_reported(run_cli: Cli, tmp_path: Path) -> None:
    evaluated(made_run(tmp_path, "tiny_stage2"), drawn(0.7))
    found = run_cli("verdict", "tiny_stage2", "--runs-dir", tmp_path)
    assert found.code == 0 and "95 % over questions" in found.out and "baseline" not in found.out
    assert found.out.endswith("\nno verdict: the paper reports nothing on these runs\n")


def test_power(run_cli: Cli) -> None:
    found = run_cli("power", "gqa", "--effect", "1.8")
    assert found.code == 0
    row = found.out.splitlines()[1].split()
    assert row[:4] == ["GQA", "+1.8", "4", "3"] and "5,900 of 12,578" in found.out
    assert "GQA: seed sd 0.47 (two pairs of trainings" in found.out
    value = json.loads(run_cli("power", "pope", "--effect", "0.7", "--json").out)
    assert value[0]["runs"] is None and value[0]["runs_these_questions"] == 7
    assert "over 1,000" in run_cli("power", "pope", "--effect", "0.7").out
    assert run_cli("power", "nothing").code == 2


def test_calibrate(run_cli: Cli, tmp_path: Path) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "llava"
    assert "nothing is calibrated" in run_cli("calibrate", "--runs-dir", runs).out
    evaluated(folder, drawn(0.5), value=62.0)
    found = run_cli("calibrate", folder, "--model", "llava-v1.5-7b", "--runs-dir", runs)
    assert found.code == 0 and "62.00  61.95 ± 0.2" in found.out and found.out.endswith("ok\n")
    evaluated(folder, drawn(0.5), "textvqa", name="1" * 16, value=40.0)
    found = run_cli("calibrate", folder, "--model", "llava-v1.5-7b", "--runs-dir", runs)
    assert found.code == 1 and "OFF" in found.out
    listed = json.loads(run_cli("calibrate", "--runs-dir", runs, "--json").out)
    assert [record["benchmark"] for record in listed] == ["gqa", "textvqa"]
    for words, problem in (
        ((folder,), "--model says whose known numbers"),
        (("--model", "x"), "with a FOLDER or FILE it adds"),
        ((folder, "--model", "x", "--benchmark", "gqa"), "belong to an answer file"),
        (("a.jsonl", "--model", "x"), "needs --benchmark NAME and --questions FILE"),
    ):
        refused = run_cli("calibrate", *words, "--runs-dir", runs)
        assert refused.code == 2 and problem in refused.err


def test_a_verdict_that_cannot_be_stored_is_printed(run_cli: Cli, runs: Path) -> None:
    first = sorted(runs.glob(f"{DCI}-*"))[0]
    (first / VERDICT_FILE).mkdir()
    found = run_cli("verdict", DCI, "--runs-dir", runs)
    assert found.code == 3 and f"{DCI}: 2 runs" in found.out
    assert "cannot be written" in found.err and "this verdict is not stored" in found.err
