"""Asking a model: on any number of processes, killed anywhere, always the same answers."""

import json
import shutil
from pathlib import Path

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError
from densekit.evaluate.results import finish
from densekit.runs.benchmarks import Decoding
from densekit.runs.evaluations import EVALUATIONS, read_plan, read_results
from densekit.runs.layout import RunDir
from tests.support.evaluating import Kill, ask, copy_of, kill_again_and_again
from tests.support.workplace import Workplace

KILLS = 10


@pytest.fixture
def run(workplace: Workplace, tmp_path: Path) -> Path:
    return copy_of(workplace.run_dir("tiny_stage2"), tmp_path / "run")


def undisturbed(workplace: Workplace, folder: Path) -> dict[str, bytes]:
    """The answers of one process that nobody interrupts."""
    whole = ask(copy_of(workplace.run_dir("tiny_stage2"), folder))
    whole.attempt(1)
    assert whole.folder.complete and whole.whole() == 32
    return whole.answers()


@pytest.mark.ranks
def test_ten_kills_on_one_to_three_processes_leave_the_same_answers(
    workplace: Workplace, run: Path, tmp_path: Path
) -> None:
    asked = ask(run)
    kill_again_and_again(asked, KILLS, seed=0)
    assert asked.folder.complete
    assert asked.answers() == undisturbed(workplace, tmp_path / "other")
    assert asked.folder.status.attempt == KILLS + 1
    results = finish(asked.folder)
    assert [result.benchmark for result in results] == [
        *("held_out", "held_out"),
        *("held_out_shuffled", "held_out_shuffled"),
    ]
    assert read_results(asked.folder) == results and results[0].complete
    assert results[0].figures["majority_class"] > 0
    assert evaluations_checked(run) == ["ok"]
    for name in ("answers/held_out.jsonl", "scores/held_out.fixed.jsonl", "evaluation.json"):
        path = asked.folder.path / name
        original = path.read_bytes()
        path.write_bytes(original.replace(b'"batch": 1', b'"batch": 2').replace(b"16", b"17"))
        if path.read_bytes() == original:
            path.write_bytes(original + b"\n")
        assert "fail" in evaluations_checked(run), name
        path.write_bytes(original)
    (asked.folder.path / "results.json").unlink()
    assert evaluations_checked(run) == ["warn"]


def evaluations_checked(run: Path) -> list[str]:
    """States of what `densekit verify` says of a run's evaluations."""
    return [check.state for check in verify_run(run) if check.name == "evaluations"]


@pytest.mark.ranks
def test_a_changed_image_is_never_mixed_with_what_was_answered(run: Path, tmp_path: Path) -> None:
    trained = RunDir(run).execution.roots
    shutil.copytree(trained.cache / "tiny" / "data", tmp_path / "cache" / "tiny" / "data")
    roots = trained.model_copy(update={"cache": tmp_path / "cache"})
    asked = ask(run, ["held_out"], roots=roots)
    asked.attempt(1, kill=Kill(3))
    plan = read_plan(asked.folder, asked.folder.evaluation.benchmarks[0])
    image = asked.execution.roots.resolve(str(plan[-1].image))
    original = image.read_bytes()
    image.write_bytes(original + b"\0")
    (outcome,) = asked.attempt(1, may_fail=True)
    assert outcome.error is not None
    assert "is not the one that this evaluation was made for" in outcome.error
    assert asked.folder.status.state == "failed" and asked.folder.status.exit_code == 3
    with pytest.raises(DataError, match=r"begun with other inputs: the image .* changed"):
        ask(run, ["held_out"], roots=roots)
    image.write_bytes(original)
    assert ask(run, ["held_out"], roots=roots) == asked
    asked.attempt(2)
    assert asked.folder.complete


@pytest.mark.ranks
def test_answers_to_the_same_are_taken_over_and_to_nothing_else(run: Path) -> None:
    first = ask(run, ["held_out"])
    first.attempt(1)
    both = ask(run)
    assert both.answers() == first.answers()  # held_out is there, its twin is asked
    both.attempt(1)
    assert both.folder.complete and both.whole() == 32
    for changed in ({"seed": 1}, {"environment": "torch 9"}, {"kernel": "another"}):
        assert ask(run, ["held_out"], **changed).answers() == {}
    weights = run / "connector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match=r"connector.safetensors was changed"):
        ask(run, ["held_out"])
    adapters = run / "model" / "generation_config.json"
    before = first.folder.evaluation.model
    assert "language_model: generation_config.json" in before.files and adapters.is_file()


@pytest.mark.ranks
def test_a_stop_keeps_the_answers(run: Path) -> None:
    asked = ask(run, ["held_out"])
    asked.attempt(2, kill=Kill(3, stops=True))
    status = asked.folder.status
    assert (status.state, status.exit_code) == ("preempted", 75)
    kept = f"stopped after {asked.whole()} of 16 answers, which are kept"
    assert status.message == f"held-out questions: {kept}"
    asked.attempt(1)
    assert asked.folder.complete and asked.whole() == 16


@pytest.mark.ranks
def test_sampled_answers_are_the_question_s_own(run: Path, tmp_path: Path) -> None:
    decoding = Decoding(do_sample=True, temperature=1, num_beams=2, max_new_tokens=3)
    sampled = {"protocol": {"decoding": decoding}, "limit": 6}
    two = ask(run, ["held_out"], **sampled)
    two.attempt(2, kill=Kill(2))
    two.attempt(2)
    source = copy_of(run, tmp_path / "one")
    shutil.rmtree(source / EVALUATIONS)
    one = ask(source, ["held_out"], **sampled)
    one.attempt(1)
    assert one.answers() == two.answers() and one.whole() == 6
    other = ask(run, ["held_out"], **sampled, seed=1)
    other.attempt(1)
    assert other.answers() != one.answers()


@pytest.mark.ranks
def test_other_packages_do_not_go_on(run: Path) -> None:
    asked = ask(run, ["held_out"])
    asked.attempt(1, kill=Kill(2))
    path = asked.folder.path / "environment.json"
    value = json.loads(path.read_text())
    value["packages"]["torch"] = "0.1"
    path.write_text(json.dumps(value))
    (outcome,) = asked.attempt(1, may_fail=True)
    assert outcome.error is not None and "was begun with torch 0.1" in outcome.error


def test_a_run_that_is_not_complete_is_not_asked(run: Path) -> None:
    RunDir(run).set_status("preempted")
    with pytest.raises(DataError, match="is preempted, not complete: train it to its end first"):
        ask(run)
