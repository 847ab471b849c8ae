"""Verdicts on stored runs: each word, what it needs, and what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.evaluate.arms import read_arm
from densekit.evaluate.calibration import runner_environment, scorer_environment
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.verdict import judge
from densekit.recipes.paper import Paper, load_paper
from densekit.runs.benchmarks import Score
from densekit.runs.calibrations import Calibration, Calibrations
from densekit.runs.evaluations import EvaluationFolder
from densekit.runs.verdicts import (
    VERDICT_FILE,
    Line,
    Verdict,
    read_verdict,
    verdicts_here,
    word_of,
    write_verdict,
)
from tests.evaluate.scored_runs import drawn, evaluated, made_run

DCI, NONE = "vicuna7b_clip_stage2", "vicuna7b_clip_none_stage2"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


def at(percent: float, questions: int = 1000) -> list[Score]:
    """Scores whose accuracy is `percent` exactly."""
    right = round(percent * questions / 100)
    return [
        replace(score, score=float(number < right))
        for number, score in enumerate(drawn(0.5, questions=questions, images=50))
    ]


def calibrated(folder: EvaluationFolder, *benchmarks: str, off: str | None = None) -> Calibrations:
    """Everything that these benchmarks need, in the environment of an evaluation."""
    made = []
    for name in benchmarks:
        for step, environment in (
            ("scorer", scorer_environment(get_protocol(name))),
            ("runner", runner_environment(folder)),
        ):
            value = 50.0 if off == step else 62.0
            made.append(
                Calibration.model_validate(
                    {
                        "step": step,
                        "model": "llava-v1.5-7b",
                        "benchmark": name,
                        "value": value,
                        "expected": 62.0,
                        "tolerance": 0.2,
                        "questions": 10,
                        "environment": environment,
                        "evidence": "0" * 64,
                        "on": "2026-11-26",
                    }
                )
            )
    return Calibrations(records=tuple(made))


def verdict_of(
    percents: list[float], folder: Path, paper: Paper, benchmark: str = "gqa"
) -> tuple[Line, Verdict]:
    """On calibrated runs of the paper's headline recipe."""
    runs = [made_run(folder, DCI, seed=seed) for seed in range(len(percents))]
    for run, percent in zip(runs, percents, strict=True):
        where = evaluated(run, at(percent), benchmark)
    found = judge(read_arm(runs), None, paper, calibrated(where, benchmark))
    return next(line for line in found.lines if line.benchmark == benchmark), found


def test_one_run_near_the_printed_value_is_compatible(tmp_path: Path, paper: Paper) -> None:
    line, whole = verdict_of([63.1], tmp_path, paper)
    assert (line.reported, line.ours, line.verdict) == (63.8, 63.1, "COMPATIBLE")
    assert line.reach == pytest.approx(1.33, abs=0.01) and line.margin == 0.9
    assert line.smallest_margin is not None and line.smallest_margin > line.margin
    assert line.seed is not None and (line.seed.sd, line.seed.own) == (0.47, False)
    assert not whole.failed and whole.word == "COMPATIBLE" and whole.recipe == DCI


def test_a_run_far_away_diverged(tmp_path: Path, paper: Paper) -> None:
    line, whole = verdict_of([61.5], tmp_path, paper)
    assert line.verdict == "DIVERGED" and line.p is not None and line.p < 0.05
    assert whole.failed and whole.word == "DIVERGED"


def test_seeds_that_lie_close_reproduce(tmp_path: Path, paper: Paper) -> None:
    line, whole = verdict_of([63.8, 63.9, 63.7, 63.8], tmp_path, paper)
    assert line.verdict == "REPRODUCED" and line.seed is not None and line.seed.own
    assert line.seed.source == "4 seeds of this recipe" and line.by_run == (63.8, 63.9, 63.7, 63.8)
    assert not whole.failed and whole.word == "REPRODUCED"


def test_holm_is_over_the_row(tmp_path: Path, paper: Paper) -> None:
    """A value that diverged alone is compatible among three that hit."""
    run = made_run(tmp_path, DCI)
    where = evaluated(run, at(62.4))
    alone = judge(read_arm([run]), None, paper, calibrated(where, "gqa"))
    evaluated(run, at(59.2), "textvqa", name="1" * 16)
    both = judge(read_arm([run]), None, paper, calibrated(where, "gqa", "textvqa"))
    lines = [{line.benchmark: line for line in each.lines}["gqa"] for each in (alone, both)]
    assert [line.verdict for line in lines] == ["DIVERGED", "COMPATIBLE"]
    assert lines[1].p == pytest.approx(2 * (lines[0].p or 0))


def test_without_calibration_there_is_no_verdict(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, DCI)
    where = evaluated(run, at(50))
    whole = calibrated(where, "gqa")
    scorer, runner = whole.records
    other = runner.model_copy(update={"environment": "another GPU"})
    sqa = scorer.model_copy(update={"benchmark": "sqa"})
    for records, note in (
        ((), "its scorer was not calibrated"),
        ((runner, sqa), "its scorer was not calibrated"),
        ((scorer, other), "the runner was not calibrated with released weights in this environ"),
        (calibrated(where, "gqa", off="scorer").records, "its scorer gave 50.00 for llava-v1.5-7b"),
        (calibrated(where, "gqa", off="runner").records, "the runner gave 50.00 for llava-v1.5-7b"),
    ):
        found = judge(read_arm([run]), None, paper, Calibrations(records=records))
        line = found.lines[0]
        assert line.verdict == "UNCALIBRATED" and line.note.startswith(note), note
        assert line.ours == 50 and line.reach is not None and line.p is None
        assert not found.failed and found.word == "UNCALIBRATED"
    assert judge(read_arm([run]), None, paper, whole).failed


def test_the_runner_needs_the_benchmark_itself_where_its_number_is_known(
    tmp_path: Path, paper: Paper
) -> None:
    run = made_run(tmp_path, DCI)
    where = evaluated(run, at(50))
    scorer, runner = calibrated(where, "gqa").records
    of_sqa = runner.model_copy(update={"benchmark": "sqa"})
    known = Calibrations(records=(scorer, of_sqa))
    assert judge(read_arm([run]), None, paper, known).lines[0].verdict == "UNCALIBRATED"
    mmmu = scorer.model_copy(
        update={"benchmark": "mmmu", "environment": scorer_environment(get_protocol("mmmu"))}
    )
    evaluated(run, at(34.8), "mmmu", name="1" * 16)
    found = judge(read_arm([run]), None, paper, Calibrations(records=(mmmu, of_sqa)))
    lines = {line.benchmark: line for line in found.lines}
    assert lines["mmmu"].verdict == "COMPATIBLE", "nobody states what released weights score"


def test_a_limit_or_a_missing_benchmark_is_incomplete(tmp_path: Path, paper: Paper) -> None:
    run, other = made_run(tmp_path, DCI), made_run(tmp_path, DCI, seed=1)
    where = evaluated(run, at(63.8), available=12_578)
    known = calibrated(where, "gqa", "textvqa", "pope")
    lines = {line.benchmark: line for line in judge(read_arm([run]), None, paper, known).lines}
    assert lines["gqa"].verdict == "INCOMPLETE"
    assert lines["gqa"].note == "1,000 of 12,578 questions" and lines["gqa"].ours == 63.8
    assert (lines["pope"].verdict, lines["pope"].note) == ("INCOMPLETE", "not evaluated")
    assert lines["pope"].ours is None
    evaluated(other, at(63.8), available=12_578)
    evaluated(other, at(59.2), "textvqa", name="1" * 16)
    found = judge(read_arm([run, other]), None, paper, known)
    lines = {line.benchmark: line for line in found.lines}
    assert lines["textvqa"].note == "evaluated in 1 of 2 runs" and found.word == "INCOMPLETE"


def test_a_metric_without_a_value_says_why(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, DCI)
    scores = [replace(score, category="random", parsed="no") for score in drawn(0.5)]
    where = evaluated(
        run,
        [replace(s, gold="yes" if n % 2 else "no", parsed="yes") for n, s in enumerate(scores)],
        "pope",
        value=None,
        problem="POPE has no value: no true positive",
    )
    found = judge(read_arm([run]), None, paper, calibrated(where, "pope"))
    (line,) = [line for line in found.lines if line.benchmark == "pope"]
    assert (line.verdict, line.note) == ("INCOMPLETE", "POPE has no value: no true positive")


def test_other_protocols_have_a_number_and_no_verdict(tmp_path: Path, paper: Paper) -> None:
    line, whole = verdict_of([76.8], tmp_path, paper, "vqav2")
    assert line.verdict == "OTHER PROTOCOL" and "test-dev" in line.note and line.ours == 76.8
    assert line.p is None and not whole.failed
    judged = {each.benchmark: each for each in whole.lines}["mmvet"]
    assert judged.verdict == "OTHER PROTOCOL" and "switched off" in judged.note
    run = made_run(tmp_path / "siglip", "vicuna7b_stage2")
    evaluated(run, at(60))
    lines = judge(read_arm([run]), None, paper, Calibrations()).lines
    video = {each.benchmark: each for each in lines}["msvd"]
    assert video.verdict == "OTHER PROTOCOL"
    assert video.note == "the paper's judge is gpt-3.5-turbo-0125 (retired)"


def test_what_the_paper_does_not_report_has_an_interval(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, "tiny_stage2")
    evaluated(run, at(70))
    found = judge(read_arm([run]), None, paper, Calibrations())
    (line,) = found.lines
    assert (line.reported, line.verdict, line.ours) == (None, None, 70)
    assert line.interval is not None and line.interval[0] < 70 < line.interval[1]
    assert found.word == "no verdict" and not found.failed


def test_the_interval_of_an_f1_ends_at_100(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, "tiny_stage2")
    evaluated(run, drawn(2.0), "easy_vqa_yes_no")
    (line,) = judge(read_arm([run]), None, paper, Calibrations()).lines
    assert line.ours == 100 and line.interval is not None
    assert 90 < line.interval[0] < 100 == pytest.approx(line.interval[1])
    assert line.interval[1] <= 100


def test_a_changed_recipe_is_not_the_papers(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, DCI, settings=["optimizer.max_steps=50"])
    evaluated(run, at(10))
    found = judge(read_arm([run]), None, paper, Calibrations())
    assert found.changed == ("optimizer.max_steps",)
    assert [line.reported for line in found.lines] == [None] and not found.failed


def test_a_reported_value_without_a_seed_term(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, DCI)
    where = evaluated(run, at(10))
    silent = paper.model_copy(update={"noise": {}})
    line = judge(read_arm([run]), None, silent, calibrated(where, "gqa")).lines[0]
    assert line.verdict is None and line.note.startswith("nothing says how far seeds lie apart")


def test_how_answers_were_made_otherwise_is_noted(tmp_path: Path, paper: Paper) -> None:
    run = made_run(tmp_path, DCI)
    flips = {"questions": 500, "flips": 2}
    where = evaluated(run, at(63), dtype="bf16", batch_size=8, flip_rate=flips)
    line = judge(read_arm([run]), None, paper, calibrated(where, "gqa")).lines[0]
    assert line.verdict == "COMPATIBLE"
    assert line.note == (
        "answered in bf16, officially in fp16; batches of 8 (2 of 500 answers differ from those "
        "alone)"
    )


def test_a_contradicted_gain_fails(tmp_path: Path, paper: Paper) -> None:
    dci = [made_run(tmp_path, DCI, seed=seed) for seed in range(3)]
    none = [made_run(tmp_path, NONE, seed=seed) for seed in range(3)]
    for seed, (a, b) in enumerate(zip(dci, none, strict=True)):
        evaluated(a, drawn(0.5, seed=seed))
        evaluated(b, drawn(0.7, seed=10 + seed))
    found = judge(read_arm(dci), read_arm(none), paper, Calibrations())
    assert found.gains is not None and found.gains.baseline == NONE
    assert [line.claim for line in found.gains.lines] == ["CONTRADICTED"]
    assert found.failed and found.word == "UNCALIBRATED"
    back = judge(read_arm(none), read_arm(dci), paper, Calibrations())
    assert back.gains is not None and back.gains.lines[0].claim == "SUPPORTED" and not back.failed


def test_an_imported_checkpoint_has_no_recipe(tmp_path: Path, paper: Paper) -> None:
    folder = tmp_path / "llava"
    folder.mkdir()
    (folder / "import.json").write_text("{}")
    evaluated(folder, at(62))
    with pytest.raises(UsageError, match=r"llava is an imported checkpoint: which recipe"):
        judge(read_arm([folder]), None, paper, Calibrations())


def test_a_verdict_is_read_as_it_was_written(tmp_path: Path, paper: Paper) -> None:
    assert verdicts_here(tmp_path) == {}
    line, whole = verdict_of([63.1], tmp_path, paper)
    (run,) = tmp_path.iterdir()
    assert read_verdict(run) is None
    path = write_verdict(run, whole)
    assert read_verdict(run) == whole and line in whole.lines
    assert verdicts_here(tmp_path) == {DCI: "COMPATIBLE"}
    assert word_of(run) == "COMPATIBLE"
    asked_again = evaluated(run, at(61), name="1" * 16)
    assert word_of(run) == "COMPATIBLE (outdated)", "asked anew since"
    assert verdicts_here(tmp_path) == {DCI: "COMPATIBLE (outdated)"}
    shutil.rmtree(asked_again.path)
    other = made_run(tmp_path, NONE)
    shutil.copy(path, other / VERDICT_FILE)
    with pytest.raises(DataError, match="is another run's; remove it"):
        read_verdict(other)
    assert verdicts_here(tmp_path) == {DCI: "COMPATIBLE", NONE: "damaged"}
    (other / "math.json").write_text("{}")
    assert verdicts_here(tmp_path) == {DCI: "COMPATIBLE"}, "no run any more"
    value = json.loads(path.read_text())
    for key, wrong, problem in (
        ("schema", 2, "has schema 2; this version reads 1"),
        ("lines", [{}], r"lines\.0\.benchmark: Field required"),
    ):
        path.write_text(json.dumps({**value, key: wrong}))
        with pytest.raises(DataError, match=problem):
            read_verdict(run)
