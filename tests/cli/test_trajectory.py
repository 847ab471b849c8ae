"""`densekit trajectory` on a command line: its report, its exit codes, wrong input."""

import json
from pathlib import Path

from benchmarks.trajectory import CASES, LENGTH, Case, Curves
from densekit.launch.fetching import jobs_of
from densekit.runs.records import METRICS_FILE
from densekit.spec.roots import Roots
from tests.support.command_line import Cli
from tests.support.trajectory import write_run, write_state


def case_of(name: str, folder: Path) -> tuple[Path, Path]:
    """The run and the file of a simulated case."""
    case: Case = CASES[name](0, Curves())
    run = write_run(folder / "runs", case)
    file = write_state(folder / "trainer_state.json", case.log, max_steps=case.length)
    return run.path, file


def test_a_run_of_50_steps_that_follows_the_file(run_cli: Cli, tmp_path: Path) -> None:
    run, file = case_of("another projector seed", tmp_path)
    result = run_cli("trajectory", run, file)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"run: {run} (50 of {LENGTH} steps)"
    assert lines[1] == f"file: {file} (up to step {LENGTH} of {LENGTH}, logged every step)"
    assert lines[2].startswith("lag 0: r +0.") and "best lag: 0 (" in lines[3]
    assert lines[-1] == "nothing speaks against the run"
    value = json.loads(run_cli("trajectory", run, tmp_path, "--json").out)
    assert value["consistent"] and value["situations"][0]["kind"] == "other_projector_seed"
    assert value["alignment"]["best"]["lag"] == 0 and value["entries"] == 50


def test_a_run_that_does_not_follow_it(run_cli: Cli, tmp_path: Path) -> None:
    run, file = case_of("another order", tmp_path)
    result = run_cli("trajectory", run, file)
    assert (result.code, result.err) == (1, "")
    assert "finding: other samples in these steps" in result.out
    assert not json.loads(run_cli("trajectory", run, file, "--json").out)["consistent"]


def test_a_line_that_is_being_written_is_not_read(run_cli: Cli, tmp_path: Path) -> None:
    run, file = case_of("the same training", tmp_path)
    with (run / METRICS_FILE).open("a", encoding="utf-8") as metrics:
        metrics.write('{"step": 51, "lo')
    result = run_cli("trajectory", run, file)
    assert result.code == 0 and "(50 of" in result.out


def test_too_few_steps_are_said_to_be_too_few(run_cli: Cli, tmp_path: Path) -> None:
    case = CASES["another order"](0, Curves())
    run = write_run(tmp_path / "runs", case, steps=8)
    file = write_state(tmp_path / "trainer_state.json", case.log)
    result = run_cli("trajectory", run.path, file)
    assert result.code == 0
    assert "not decidable from 8 entries: wait until the run has 20 steps" in result.out


def test_wrong_input(run_cli: Cli, tmp_path: Path) -> None:
    run, file = case_of("the same training", tmp_path)
    for arguments, code, message in (
        ((run, run / "math.json"), 3, "has no `log_history`"),
        ((run, tmp_path / "none.json"), 3, "none.json is missing"),
        ((tmp_path / "nothing", file), 3, "nothing"),
        ((run, file, "--band", "0"), 2, "--band 0.0: give a share between 0 and 1"),
        ((run, file, "--band", "nan"), 2, "--band nan"),
    ):
        result = run_cli("trajectory", *arguments)
        assert (result.code, result.out) == (code, "") and message in result.err, result
    (run / METRICS_FILE).write_text("", encoding="utf-8")
    result = run_cli("trajectory", run, file)
    assert (result.code, result.out) == (3, "")
    assert "has no step in its metrics.jsonl yet" in result.err


def test_what_cannot_be_followed_is_refused_before_a_run_exists(
    run_cli: Cli, tmp_path: Path
) -> None:
    case = CASES["the same training"](0, Curves())
    file = write_state(tmp_path / "trainer_state.json", case.log)
    bad = tmp_path / "bad.json"
    bad.write_text("{}", encoding="utf-8")
    where = ("--runs-dir", tmp_path / "runs")
    for arguments, code, message in (
        (("tiny_stage1", "--trajectory", bad), 3, "bad.json is not a trainer_state.json"),
        (("tiny_stage1", "--trajectory-stop"), 2, "--trajectory-stop: give --trajectory FILE too"),
        (("tiny_stage1", "tiny_stage2", "--trajectory", file), 2, "--trajectory: give one recipe"),
    ):
        result = run_cli("run", *arguments, *where)
        assert result.code == code and message in result.err, result
    assert not (tmp_path / "runs").exists()


def test_fetch_says_where_no_log_is_known(run_cli: Cli) -> None:
    result = run_cli("fetch", "vicuna7b_clip_stage1", "--only", "trajectories")
    assert (result.code, result.err) == (0, "")
    assert "no log of their training is known to be published" in result.out


def test_known_logs_go_below_the_data_root(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, models=tmp_path, cache=tmp_path)
    (job,) = jobs_of(["vicuna7b_stage2"], (), roots, only=("trajectories",))
    place = tmp_path / "trajectories" / "DenseConnector-v1.5-7B" / "trainer_state.json"
    assert job.place == place
    assert all(job.subject != "trajectories" for job in jobs_of(["vicuna7b_stage2"], (), roots))
