"""`densekit replay`: a run is carried out again in its own way, and what comes out is held against
what was promised.

The trainer is a stand-in that copies a run trained beforehand into the replay's directory.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from densekit.errors import DataError, UsageError
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, write_json
from densekit.launch.launchers import local
from densekit.launch.replay import _made_again, expect, replay
from densekit.recipes.load import load_recipe
from densekit.runs.layout import RunDir
from densekit.runs.records import METRICS_FILE, chain_next, read_steps
from densekit.spec.execution import Execution
from tests.support.files import names
from tests.support.launching import trainer
from tests.support.runs import change_entry, make_world, train

HOW = {
    "dtype": "fp32",
    "attention": "sdpa",
    "world_size": 1,
    "zero_stage": 0,
    "micro_batch_size": 2,
    "threads": 1,
    "activation_checkpointing": False,
    "deterministic": False,
    "checkpoints": {"keep": 2},
    "workers": 1,
}
COPY = """
import shutil
names = ("metrics.jsonl", "feed.jsonl", "certificate.json", "init.safetensors",
         "connector.safetensors", "results.json", "manifest.json")
for name in names:
    shutil.copy(pathlib.Path({source!r}) / name, path)
status("complete")
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world with one run in it, to copy."""
    folder = tmp_path_factory.mktemp("replayed")
    train(make_world(folder / "world"), folder / "runs", execution=HOW)
    return folder


@pytest.fixture
def run(first: Path) -> Path:
    """The run; nothing may change it."""
    (found,) = (first / "runs").iterdir()
    return found


@pytest.fixture
def own(first: Path, tmp_path: Path) -> Path:
    """A run over a world that both belong to the test."""
    return train(
        Path(shutil.copytree(first / "world", tmp_path / "world")), tmp_path / "runs", execution=HOW
    )


@pytest.fixture
def gives(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let the trainer's outcome be that of another run directory."""
    return lambda source: monkeypatch.setattr(
        local, "command", trainer(COPY.format(source=str(source)))
    )


@pytest.fixture(autouse=True)
def trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise AssertionError("the trainer was started")

    monkeypatch.setattr(local, "command", refuse)


def other(folder: Path, world: Path, *, step: int, by: float, name: str = "loss") -> Path:
    """A run like `first` whose loss (or another number) is another one from a step on."""
    made = train(world, folder, execution=HOW)
    path, chain = made / METRICS_FILE, RunDir(made).sha256
    lines = []
    for line in read_steps(path):
        changed = {name: getattr(line, name) + by} if line.step >= step else {}
        line = replace(line, **changed)
        chain = chain_next(chain, line)
        lines.append(json.dumps(asdict(replace(line, chain=chain))))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return made


def edit_manifest(run: Path, **values: Any) -> None:
    write_json(run / "manifest.json", sealed({**read_json(run / "manifest.json"), **values}))


Told = Callable[[], list[str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return lambda: capsys.readouterr().out.splitlines()


# What is trained


@pytest.mark.ranks
def test_replay_has_the_same_math_and_execution(
    run: Path, tmp_path: Path, gives: Any, told: Told
) -> None:
    gives(run)
    assert replay(run, runs_dir=tmp_path) == 0
    made = RunDir(tmp_path / f"{run.name}.replay1")
    assert made.math == RunDir(run).math and made.complete and made.status.attempt == 1
    execution = read_json(run / "attempts" / "0001" / "execution.json")
    assert read_json(made.attempt / "execution.json") == execution and execution["workers"] == 1
    assert told()[1:] == [
        f"a: {run} (run {made.sha256[:10]})",
        f"b: {made.path} (run {made.sha256[:10]})",
        "bitwise equal over 6 steps",
        "runs are identical",
        "the replay is bitwise equal to the run, trained weights included",
    ]


@pytest.mark.ranks
def test_replays_are_numbered_beside_their_run(
    own: Path, gives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives(own)
    monkeypatch.chdir(own)
    assert replay(Path()) == replay(own / "attempts" / "..") == 0
    (own.parent / f"{own.name}.replay3").mkdir()  # something else is not touched
    assert replay(own) == 0
    assert replay(own.parent / f"{own.name}.replay1") == 0
    ends = ["", ".replay1", ".replay1.replay1", ".replay2", ".replay3", ".replay4"]
    assert [name for name in names(own.parent) if name[0] != "."] == [
        own.name + end for end in ends
    ]
    assert names(own.parent / f"{own.name}.replay3") == []


@pytest.mark.ranks
def test_replay_uses_the_execution_of_the_last_attempt(
    own: Path, gives: Any, tmp_path: Path, told: Told
) -> None:
    run = RunDir(own)
    execution = run.execution.model_copy(update={"world_size": 2})
    shutil.copy(run.attempt / "environment.json", run.new_attempt(execution))
    run.set_status("complete")
    edit_manifest(own, attempts=2, execution=execution.as_json())
    gives(own)
    assert replay(own, runs_dir=tmp_path / "replays") == 0
    (made,) = (tmp_path / "replays").glob(f"{own.name}.*")
    assert RunDir(made).execution == execution
    gives(other(tmp_path / "other", tmp_path / "world", step=2, by=1e-7))
    told()
    assert replay(own, runs_dir=tmp_path / "replays") == 0
    assert told()[-1] == (
        "the replay is equal within 1e-05 (`world_size` was 1 and 2 in the attempts, so rounding "
        "differs)"
    )


@pytest.mark.ranks
def test_deterministic_option_is_added(run: Path, tmp_path: Path, gives: Any) -> None:
    gives(run)
    assert replay(run, runs_dir=tmp_path, deterministic=True) == 0
    assert (
        read_json(tmp_path / f"{run.name}.replay1" / "attempts" / "0001" / "execution.json")[
            "deterministic"
        ]
        is True
    )


@pytest.mark.ranks
def test_stopped_replay_resumes(
    run: Path,
    tmp_path: Path,
    gives: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        local, "command", trainer("status('preempted', 'step 3', 75); sys.exit(75)")
    )
    assert replay(run, runs_dir=tmp_path) == 75
    printed = capsys.readouterr()
    assert "equal" not in printed.out and "part" not in printed.out
    assert printed.err.endswith(f"{run.name}.replay1: `densekit replay {run}` resumes it\n")
    gives(run)
    assert replay(run, runs_dir=tmp_path) == 0
    assert RunDir(tmp_path / f"{run.name}.replay1").status.attempt == 2
    assert not (tmp_path / f"{run.name}.replay2").exists()


@pytest.mark.ranks
@pytest.mark.parametrize("code", [1, 3, 130])
def test_failed_replay_returns_the_exit_code(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(
        local, "command", trainer(f"status('failed', 'why', {code}); sys.exit({code})")
    )
    assert replay(run, runs_dir=tmp_path) == code


# What is expected


@pytest.mark.ranks
def test_bit_difference_without_tolerance_diverges(
    run: Path, first: Path, tmp_path: Path, gives: Any, told: Told
) -> None:
    gives(other(tmp_path / "other", first / "world", step=4, by=1e-9))
    assert replay(run, runs_dir=tmp_path) == 1
    lines = told()
    assert lines[3].startswith("runs diverge at step 4: loss: ")
    assert lines[4] == "before that: bitwise equal over 3 steps"
    assert lines[-2:] == [
        "the replay diverges from the run; expected: bitwise equal (all attempts had the same "
        "execution)",
        "within 1e-05 they are equal",
    ]
    assert replay(run, runs_dir=tmp_path, tolerance=1e-5) == 0
    assert told()[-1] == "the replay is equal within 1e-05 (as --tolerance asks for)"


@pytest.mark.ranks
def test_bit_difference_within_tolerance_is_reported(
    run: Path, first: Path, tmp_path: Path, gives: Any, told: Told
) -> None:
    gives(other(tmp_path / "other", first / "world", step=4, by=1e-16, name="lr"))
    assert replay(run, runs_dir=tmp_path) == 1
    assert "first bit difference at step 4" in told()[3]


@pytest.mark.ranks
def test_divergence_names_its_cause(own: Path, tmp_path: Path, gives: Any, told: Told) -> None:
    newer = train(
        tmp_path / "world",
        tmp_path / "other",
        execution=HOW,
        environment={"packages": {"transformers": "5.23.0"}},
    )
    gives(newer)
    assert replay(own) == 1
    lines = told()
    assert lines[3].startswith("runs diverge at step 1: loss: ")
    assert lines[lines.index("differences that can explain it, most likely first:") + 1].startswith(
        "1. package transformers: 5.22.0"
    )
    assert lines[-1] == "within 1e-05 they are not equal either"
    gives(newer)
    assert replay(own, tolerance=1e-5) == 1
    assert told()[-1] == (
        "the replay diverges from the run; expected: equal within 1e-05 (as --tolerance asks for)"
    )


@pytest.mark.ranks
def test_trained_weight_difference_diverges(
    own: Path, tmp_path: Path, gives: Any, told: Told
) -> None:
    copy = Path(shutil.copytree(own, tmp_path / "copy"))
    edit_manifest(copy, outputs={"connector.safetensors": "0" * 64})
    gives(copy)
    assert replay(own) == 1
    assert "runs diverge at step 6: trained weights: " in told()[3]


@pytest.mark.parametrize(
    ("changes", "tolerance", "reason"),
    [
        ([{}, {}], 0.0, "the same execution"),
        ([{}, {"workers": 4, "checkpoints": {"keep": 9}}], 0.0, "the same execution"),
        *[
            (
                [{}, {name: value}, {name: value}],
                1e-5,
                f"`{name}` was {HOW[name]} and {value} in the attempts",
            )
            for name, value in {
                "dtype": "bf16",
                "attention": "flash",
                "world_size": 2,
                "zero_stage": 3,
                "micro_batch_size": 4,
                "threads": 8,
                "activation_checkpointing": True,
                "deterministic": True,
            }.items()
        ],
        ([{}, {"device": "cuda"}], 1e-5, "`device` was cpu and cuda"),
        ([{"device": "cuda"}] * 2, 1e-5, "without --deterministic"),
        ([{"device": "cuda", "deterministic": True}] * 2, 0.0, "the same execution"),
        (
            [{"device": "cuda"}, {"device": "cuda", "deterministic": True}],
            1e-5,
            "`deterministic` was False and True",
        ),
    ],
)
def test_expected_tolerance_follows_the_executions(
    changes: list[dict[str, Any]], tolerance: float, reason: str
) -> None:
    executions = [Execution(**{**HOW, **change}) for change in changes]
    expected = expect(executions, None)
    assert expected.tolerance == tolerance and reason in expected.reason
    assert expect(executions, 0.5).tolerance == 0.5


# What is refused, and leaves nothing behind


def refused(run: Path, error: type[Exception], message: str, **options: Any) -> None:
    before = names(run.parent)
    with pytest.raises(error, match=message):
        replay(run, **options)
    assert names(run.parent) == before


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_folder_that_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(tmp_path / name, DataError, rf"{name} is not a run directory: it has no math\.json")


@pytest.mark.parametrize("state", ["created", "running", "failed", "preempted"])
def test_incomplete_run_is_refused(own: Path, state: str) -> None:
    RunDir(own).set_status(state)
    refused(
        own,
        UsageError,
        rf"is {state}, not complete: finish it with `densekit run made`, then replay it",
    )


@pytest.mark.parametrize("damage", ["gone", "unfinished", "another"])
def test_stage_1_run_must_be_complete(own: Path, tmp_path: Path, damage: str) -> None:
    start = train(tmp_path / "world", tmp_path / "start", recipe={"name": "stage1"})
    execution = {**read_json(own / "manifest.json")["execution"], "starts_from": str(start)}
    write_json(own / "attempts" / "0001" / "execution.json", execution)
    edit_manifest(own, execution=execution)
    if damage == "gone":
        shutil.rmtree(start)
    elif damage == "unfinished":
        RunDir(start).set_status("failed")
    else:
        write_json(own / "math.json", {**read_json(own / "math.json"), "starts_from": "0" * 64})
    message = (
        "cannot be replayed: "
        if damage == "another"
        else "missing or not complete: restore that run, then replay"
    )
    refused(own, DataError, message)


def test_damaged_run_is_refused(own: Path) -> None:
    (own / "connector.safetensors").unlink()
    (own / "init.safetensors").unlink()
    refused(
        own,
        DataError,
        r"cannot be replayed: init: .*init.safetensors is missing.*and 1 more: `densekit verify",
    )


@pytest.mark.parametrize("gone", [False, True])
def test_changed_or_missing_inputs_are_refused(own: Path, tmp_path: Path, gone: bool) -> None:
    if gone:
        shutil.rmtree(tmp_path / "world" / "models" / "tower")
        refused(
            own,
            DataError,
            "cannot be replayed: vision_tower: not checked: its folder .*tower is missing",
        )
    else:
        change_entry(tmp_path / "world", 3)
        refused(
            own,
            DataError,
            r"cannot be replayed: annotations: .*train.json was changed.* restore the original",
        )


@pytest.mark.ranks
def test_made_inputs_may_have_changed(own: Path, tmp_path: Path, gives: Any) -> None:
    """The cache may hold another recipe's by now; what the recipe names elsewhere stays what it
    was.
    """
    made = tmp_path / "world" / "cache" / "tiny" / "train.json"
    made.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "world" / "data" / "train.json", made)
    assets = load_recipe("tiny_stage1").math().model_dump()["assets"]
    recipe = {"assets": assets, "data": {"annotations": "cache:tiny/train.json"}}
    tiny = train(tmp_path / "world", tmp_path / "tiny", recipe=recipe, execution=HOW)
    made.write_text("another recipe's", encoding="utf-8")
    gives(tiny)
    assert replay(tiny) == 0
    (tmp_path / "world" / "models" / "lm" / "tokenizer.model").unlink()
    refused(tiny, DataError, "cannot be replayed: language_model: .*tokenizer.model is missing")


def test_attempt_without_execution_is_refused(own: Path) -> None:
    (own / "attempts" / "0001" / "execution.json").unlink()
    refused(
        own,
        DataError,
        "0001/execution.json is missing or empty, so the execution of .* is unknown",
    )


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_invalid_tolerance_is_refused(run: Path, tolerance: float) -> None:
    refused(run, UsageError, "--tolerance .*: give a number of at least 0", tolerance=tolerance)


def test_runs_dir_that_is_a_file_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(run, UsageError, r"--runs-dir .*file: is not a folder", runs_dir=tmp_path / "file")


def test_second_driver_is_refused(run: Path, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / f".{run.name}.replay1.lock"),
        pytest.raises(
            UsageError, match=r"another densekit is training .*replay1; wait for it, or stop it"
        ),
    ):
        replay(run, runs_dir=tmp_path)
    assert RunDir(tmp_path / f"{run.name}.replay1").status.attempt == 0


def test_inputs_that_a_tiny_recipe_makes_are_made_again() -> None:
    made = ["language_model", "vision_tower", "tokenizer", "annotations"]
    assert _made_again(load_recipe("tiny_stage2").math()) == made
    assert _made_again(load_recipe("vicuna7b_stage2").math()) == []
