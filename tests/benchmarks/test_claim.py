"""`make claim`: trainings two at a time on a core each, and what is known without any picture."""

import os
import sys
from pathlib import Path

import pytest
from claim import outcome, training
from claim.__main__ import ARMS
from claim.training import Training, command_of, train_all

from densekit.errors import UsageError
from densekit.recipes.load import recipe_names
from densekit.runs.verdicts import VERDICT_FILE
from densekit.spec.roots import Roots
from densekit.toy.easy_vqa import Asked
from tests.evaluate.scored_runs import drawn, evaluated, made_run
from tests.support.needs import needs

WORKER = """
import os, sys, time
place, code = sys.argv[1:]
cores = len(os.sched_getaffinity(0))
with open(place, "a") as file: file.write(f"begin {cores}\\n")
time.sleep(0.3)
with open(place, "a") as file: file.write("end\\n")
print("last words")
sys.exit(int(code))
"""


def trainings(count: int) -> list[Training]:
    return [Training(recipe="made", seed=seed) for seed in range(count)]


def replaced(monkeypatch: pytest.MonkeyPatch, place: Path, codes: dict[int, int]) -> None:
    """Each training is a process that writes down when it began and ended."""

    def command(asked: Training, *_: object) -> list[str]:
        return [sys.executable, "-c", WORKER, str(place), str(codes.get(asked.seed, 0))]

    monkeypatch.setattr(training, "command_of", command)


@pytest.mark.ranks
def test_two_at_a_time_on_a_core_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        needs("cores", f"this process has {len(before)}")
    replaced(monkeypatch, tmp_path / "said", {})
    assert train_all(trainings(3), tmp_path, Roots(), at_once=2) == 0
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines[:2] == ["begin 1", "begin 1"] and lines[2] == "end"
    assert lines.count("begin 1") == lines.count("end") == 3
    assert os.sched_getaffinity(0) == before
    assert capsys.readouterr().out.count(": complete (") == 3
    assert (tmp_path / "logs" / "made_seed_2.txt").read_text() == "last words\n"


@pytest.mark.ranks
def test_after_a_failure_none_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(monkeypatch, tmp_path / "said", {0: 3})
    assert train_all(trainings(3), tmp_path, Roots(), at_once=1) == 3
    assert (tmp_path / "said").read_text().splitlines() == ["begin 1", "end"]
    out = capsys.readouterr().out
    assert "made seed 0: exit code 3" in out and out.endswith("last words\n")


@pytest.mark.parametrize("at_once", [4096, 0, -1])
def test_more_at_once_than_cores_is_refused_and_none(tmp_path: Path, at_once: int) -> None:
    with pytest.raises(UsageError, match=rf"--at-once {at_once}: .* ARGS='--at-once"):
        train_all(trainings(1), tmp_path, Roots(), at_once=at_once)


def test_a_training_is_a_run_with_its_seed(tmp_path: Path) -> None:
    from claim.__main__ import ARMS, SEEDS

    assert {*ARMS} <= {*recipe_names()} and len(SEEDS) == 3
    asked = Training(recipe=ARMS[0], seed=2, more=("optimizer.epochs=2",))
    words = command_of(asked, tmp_path, Roots())
    assert words[7:9] == ["--set", "optimizer.epochs=2"]
    assert words[1:6] == ["-m", "densekit", "run", ARMS[0], "--set"] and words[6] == "seed=2"


def test_what_the_commonest_answers_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {
        "train": [
            ("red?", "no", 0),
            ("red?", "no", 1),
            ("red?", "yes", 2),
            ("shape?", "circle", 2),
        ],
        "test": [("red?", "no", 0), ("red?", "yes", 1), ("shape?", "circle", 2)],
    }
    rows = {name: {0: [Asked(*row) for row in part]} for name, part in asked.items()}
    monkeypatch.setattr(outcome, "read_part", lambda _, part: rows[part.name])
    assert outcome.blind_accuracy(tmp_path) == pytest.approx(200 / 3)


def test_the_outcome_is_a_verdict_with_the_power_that_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "package_folder", lambda: tmp_path)
    monkeypatch.setattr(outcome, "blind_accuracy", lambda _: 67.0)
    arms: list[list[Path]] = []
    for recipe, share in zip(ARMS, (0.6, 0.5), strict=True):
        arms.append([made_run(tmp_path, recipe, seed=seed) for seed in (1, 2)])
        for seed, run in enumerate(arms[-1]):
            evaluated(run, drawn(share, seed=seed + len(recipe)), "easy_vqa", batch_size=64)
    found = outcome.outcome_lines(arms[0], arms[1], tmp_path)
    said = "\n".join(found.lines)
    assert f"{ARMS[0]} better than {ARMS[1]}? (2 runs against 2)" in said
    assert "text: 67.00" in said and "both arms with own seeds" in said
    assert not found.failed and all((run / VERDICT_FILE).is_file() for run in arms[0])
