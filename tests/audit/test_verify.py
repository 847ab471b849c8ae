"""Verifying a run directory: an untouched one passes, every kind of damage is named with its file
and its remedy.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.diff.compare import compare_runs
from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.runs.manifest import sealed
from densekit.spec.check import Check
from tests.support.runs import (
    change_entry,
    copy_world,
    flip_byte,
    make_world,
    train,
    write_checkpoint,
)

REMEDIES = "train again|put the original back|put that run back|remove the folder"
Edit = Callable[[str], str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("worlds") / "first")


@pytest.fixture(scope="module")
def original(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run; nothing may change it."""
    return train(world, tmp_path_factory.mktemp("first"))


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the complete run, to damage."""
    return Path(shutil.copytree(original, tmp_path / original.name))


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A world and a complete run over it, both to damage."""
    world = make_world(tmp_path / "world")
    return world, train(world, tmp_path / "runs")


def failures(run: Path) -> dict[str, str]:
    """The messages of the checks that failed, by name; a failed check says what to do."""
    failed = [check for check in verify_run(run) if check.state == "fail"]
    for check in failed:
        assert re.search(REMEDIES, check.message), check
    return {check.name: check.message for check in failed}


def names(checks: list[Check], state: str) -> list[str]:
    return [check.name for check in checks if check.state == state]


def edit(path: Path, change: Edit) -> None:
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


def edit_line(path: Path, number: int, **values: Any) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **values})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def edit_manifest(run: Path, **values: Any) -> None:
    """Change the manifest and seal it again, as a forger would."""
    write_json(run / "manifest.json", sealed({**read_json(run / "manifest.json"), **values}))


def test_an_untouched_run_passes(original: Path) -> None:
    checks = verify_run(original)
    assert {check.state for check in checks} == {"ok"}
    assert [check.name for check in checks] == [
        "math",
        "status",
        "manifest",
        "execution",
        "environment",
        "steps",
        "certificate",
        "metrics",
        "init",
        "outputs",
        "annotations",
        "language_model",
        "vision_tower",
    ]
    assert "6 steps fit the feed and the hash chain" in [check.message for check in checks]


@pytest.mark.parametrize("stop_after", [0, 3, 6])
def test_an_unfinished_run_passes_with_a_warning(
    world: Path, tmp_path: Path, stop_after: int
) -> None:
    run = train(world, tmp_path, stop_after=stop_after)
    checks = verify_run(run)
    assert names(checks, "fail") == []
    assert names(checks, "warn") == ["status"] + ["certificate"] * (stop_after < 6)
    assert "the run is preempted, not complete: only what exists so far is checked" in [
        c.message for c in checks
    ]
    assert "checkpoints" in names(checks, "ok")


def test_a_run_that_never_started(original: Path, tmp_path: Path) -> None:
    run = tmp_path / original.name
    run.mkdir()
    shutil.copy(original / "math.json", run)
    write_json(
        run / "status.json", {"state": "created", "message": "", "exit_code": 0, "attempt": 0}
    )
    checks = verify_run(run)
    assert names(checks, "warn") == ["status", "annotations"] and names(checks, "fail") == []


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_no_run_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(
        DataError, match=rf"{name} is no run directory: it has no math\.json; give a folder"
    ):
        verify_run(tmp_path / name)


# What the run fed and measured


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": 2.0},
            "step 4 does not fit the hash chain: its loss, grad_norm or chain was edited",
        ),
        ({"grad_norm": None}, "step 4 does not fit the hash chain"),
        ({"chain": "0" * 64}, "step 4 does not fit the hash chain"),
        ({"ids": "0" * 64}, r"step 4: `ids` does not fit the feed: \S*metrics.jsonl was edited"),
        (
            {"images": "0" * 64},
            r"step 4: `images` does not fit the feed: \S*metrics.jsonl was edited",
        ),
        ({"step": 5}, "line 4 is step 5: a line was edited, lost or doubled"),
    ],
)
def test_an_edited_metrics_line(run: Path, values: dict[str, Any], message: str) -> None:
    edit_line(run / "metrics.jsonl", 4, **values)
    failed = failures(run)
    assert set(failed) == {"steps", "metrics"} and re.search(message, failed["steps"])
    assert "train again" in failed["steps"]


def test_what_the_chain_does_not_cover(run: Path) -> None:
    edit_line(run / "metrics.jsonl", 4, lr=1.0)
    failed = failures(run)
    assert set(failed) == {"metrics"}
    assert f"{run}/metrics.jsonl was changed: its SHA-256 is " in failed["metrics"]


def test_a_forged_chain_does_not_reach_its_recorded_end(run: Path) -> None:
    path = run / "metrics.jsonl"
    edit(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    edit(run / "feed.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    edit_manifest(run, metrics_sha256=file_sha256(path))
    failed = failures(run)
    assert (
        "ends after 5 steps with chain" in failed["steps"]
        and "the manifest says 6 steps" in failed["steps"]
    )
    assert "holds 5 steps" in failed["certificate"] and "says 6" in failed["certificate"]


@pytest.mark.parametrize(
    ("name", "item"),
    [("samples", "12:0000000000000000"), ("images", "0" * 16)],
    ids=["samples", "images"],
)
def test_an_edited_feed_line(run: Path, name: str, item: str) -> None:
    line = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[1])
    edit_line(run / "feed.jsonl", 2, **{name: [item, *line[name][1:]]})
    failed = failures(run)
    kind = {"samples": "ids", "images": "images"}[name]
    assert f"step 2: `{kind}` does not fit the feed: {run}/feed.jsonl was edited" in failed["steps"]
    assert set(failed) == ({"steps", "certificate"} if name == "samples" else {"steps"})


def test_two_swapped_samples(run: Path) -> None:
    samples = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[2])[
        "samples"
    ]
    edit_line(run / "feed.jsonl", 3, samples=[samples[1], samples[0], *samples[2:]])
    assert "step 3: `ids`" in failures(run)["steps"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_a_truncated_file_of_a_complete_run(run: Path, name: str) -> None:
    edit(run / name, lambda text: text[:-30])
    assert re.search(rf"{name}: line 6 is not a JSON object", failures(run)["steps"])


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_a_half_written_line_of_a_killed_run_is_no_damage(
    world: Path, tmp_path: Path, name: str
) -> None:
    run = train(world, tmp_path, stop_after=3)
    edit(run / name, lambda text: text + '{"step": 4, "lo')
    checks = verify_run(run)
    assert names(checks, "fail") == [] and "steps" in names(checks, "warn")


def test_a_killed_run_may_have_fed_one_step_more(
    world: Path, original: Path, tmp_path: Path
) -> None:
    run = train(world, tmp_path, stop_after=3)
    lines = (original / "feed.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "feed.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    assert failures(run) == {}
    (run / "feed.jsonl").write_text("".join(lines[:5]), encoding="utf-8")
    assert "goes on to line 5" in failures(run)["steps"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_a_lost_last_line(run: Path, name: str) -> None:
    edit(run / name, lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    assert re.search(r"ends before step 6|ends after step 5", failures(run)["steps"])


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_a_deleted_file(run: Path, name: str) -> None:
    (run / name).unlink()
    assert f"{run}/{name} is missing" in failures(run)["steps"]


@pytest.mark.parametrize("field", ["sha256", "steps", "samples_dropped", "schema"])
def test_an_edited_certificate(run: Path, field: str) -> None:
    value = "0" * 64 if field == "sha256" else 99
    write_json(run / "certificate.json", {**read_json(run / "certificate.json"), field: value})
    assert list(failures(run)) == ["certificate"]


def test_a_certificate_that_the_feed_does_not_add_up_to(run: Path) -> None:
    certificate = {**read_json(run / "certificate.json"), "sha256": "0" * 64}
    write_json(run / "certificate.json", certificate)
    recorded = read_json(run / "manifest.json")["certificate"]
    edit_manifest(run, certificate={name: certificate[name] for name in recorded})
    assert "does not add up to the hash in" in failures(run)["certificate"]


# The run's own files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('"seed": 42', '"seed": 43'),
            r"the manifest says \w{10}; it was edited",
        ),
        (lambda text: text[:40], "math.json cannot be read"),
        (lambda text: text.replace('"schema": 2', '"schema": 9'), "has schema 9"),
    ],
)
def test_a_damaged_math(run: Path, change: Edit, message: str) -> None:
    edit(run / "math.json", change)
    failed = failures(run)
    assert (
        re.search(message, failed["math"]) and "steps" not in failed
    )  # what ran is still told by the manifest


def test_math_against_the_name_of_its_folder(run: Path) -> None:
    place = run
    for end in (".old2", ".replay1", ".old1.replay12", ".replay1.replay1"):
        place = place.rename(run.with_name(f"{run.name}{end}"))
        assert {check.state for check in verify_run(place)} == {"ok"}, end
    renamed = place.rename(run.with_name("mine"))
    assert [check.name for check in verify_run(renamed) if check.state == "warn"] == ["math"]
    other = renamed.rename(run.with_name("made-0123456789"))
    assert "the folder's name says 0123456789" in failures(other)["math"]


def test_a_missing_math(run: Path) -> None:
    (run / "math.json").unlink()
    assert f"{run}/math.json is missing" in failures(run)["math"]


def test_a_complete_run_without_a_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()
    failed = failures(run)
    assert (
        list(failed) == ["manifest"]
        and "manifest.json is missing though the run is complete" in failed["manifest"]
    )


def test_an_edited_manifest(run: Path) -> None:
    write_json(run / "manifest.json", {**read_json(run / "manifest.json"), "recipe": "another"})
    assert "its own hash does not fit its content: it was edited" in failures(run)["manifest"]


def test_a_manifest_of_another_run(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(world, tmp_path / "other", recipe={"seed": 7})
    shutil.copy(other / "manifest.json", run)
    assert {"math", "steps", "init", "outputs"} <= set(failures(run))


def test_a_manifest_of_an_unfinished_attempt(run: Path) -> None:
    edit_manifest(run, state="running")
    assert "that of an unfinished attempt" in failures(run)["manifest"]


@pytest.mark.parametrize("name", ["execution", "environment"])
def test_an_edited_attempt(run: Path, name: str) -> None:
    path = run / "attempts" / "0001" / f"{name}.json"
    write_json(path, {**read_json(path), "python": "3.99"})
    assert list(failures(run)) == [name]
    path.unlink()
    assert names(verify_run(run), "warn") == [name]


def test_an_edited_status(run: Path) -> None:
    status = read_json(run / "status.json")
    write_json(run / "status.json", {**status, "attempt": 2})
    assert "counts 2 attempts, the manifest 1" in failures(run)["attempt"]
    write_json(run / "status.json", {**status, "state": "perfect"})
    assert "state 'perfect' is none of" in failures(run)["status"]
    (run / "status.json").unlink()
    assert "status.json is missing" in failures(run)["status"]


def test_an_attempt_that_has_not_written_its_manifest_yet(world: Path, tmp_path: Path) -> None:
    run = train(world, tmp_path, stop_after=3)
    RunDir(run).new_attempt({"gpus": 2, "roots": {}})
    assert failures(run) == {}


@pytest.mark.parametrize(
    ("name", "check"), [("connector.safetensors", "outputs"), ("init.safetensors", "init")]
)
def test_a_flipped_byte_in_a_weight_file(run: Path, name: str, check: str) -> None:
    flip_byte(run / name, -1)
    failed = failures(run)
    assert list(failed) == [check] and f"{run}/{name} was changed" in failed[check]
    (run / name).unlink()
    assert f"{run}/{name} is missing" in failures(run)[check]


# Inputs


def test_inputs_that_are_gone_are_warnings(own: tuple[Path, Path]) -> None:
    world, run = own
    shutil.rmtree(world)
    checks = verify_run(run)
    assert names(checks, "warn") == ["annotations", "language_model", "vision_tower", "tokenizer"]
    assert names(checks, "fail") == []


def test_inputs_that_changed(own: tuple[Path, Path]) -> None:
    world, run = own
    change_entry(world, 3)
    flip_byte(world / "models" / "tower" / "model.safetensors", -1)
    (world / "models" / "lm" / "tokenizer.model").unlink()
    failed = failures(run)
    assert set(failed) == {"annotations", "vision_tower", "language_model"}
    assert f"{world}/data/train.json was changed" in failed["annotations"]
    assert "model.safetensors was changed" in failed["vision_tower"]
    assert f"{world}/models/lm/tokenizer.model is missing" in failed["language_model"]
    assert all("put the original back" in message for message in failed.values())


def test_a_connector_given_as_a_file(own: tuple[Path, Path]) -> None:
    world, run = own
    weights = world / "models" / "projector.safetensors"
    weights.write_bytes(b"weights")
    math = read_json(run / "math.json")
    math["inputs"]["connector"] = file_sha256(weights)
    math["recipe"]["models"]["connector"] = "models:projector.safetensors"
    write_json(run / "math.json", math)
    assert "connector" in names(verify_run(run), "ok")
    flip_byte(weights, 0)
    assert "projector.safetensors was changed" in failures(run)["connector"]
    weights.unlink()
    assert "connector" in names(verify_run(run), "warn")


def test_annotations_that_the_kit_made(own: tuple[Path, Path]) -> None:
    world, run = own
    write_json(run / "math.json", {**read_json(run / "math.json"), "inputs": {}})
    assert "annotations" in names(verify_run(run), "ok")
    change_entry(world, 3)
    assert "annotations" in failures(run)


def test_annotations_other_than_the_run_was_made_for(run: Path) -> None:
    edit_manifest(run, data={"annotations_sha256": "0" * 64})
    assert "data.annotations_sha256 is not inputs.annotations" in failures(run)["annotations"]


def test_the_run_it_starts_from(run: Path, world: Path, tmp_path: Path) -> None:
    first = train(world, tmp_path / "first", recipe={"name": "stage1"})
    execution = {**read_json(run / "manifest.json")["execution"], "starts_from": str(first)}
    write_json(run / "attempts" / "0001" / "execution.json", execution)
    edit_manifest(run, execution=execution)
    write_json(
        run / "math.json", {**read_json(run / "math.json"), "starts_from": RunDir(first).sha256}
    )
    assert "starts_from" in names(verify_run(run), "ok")
    edit(first / "math.json", lambda text: text.replace('"seed": 42', '"seed": 1'))
    assert f"{first} is not the run" in failures(run)["starts_from"]
    shutil.rmtree(first)
    assert "starts_from" in names(verify_run(run), "warn")


# Checkpoints


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: flip_byte(folder / "rank-0000.safetensors", -1),
            "rank-0000.safetensors was changed",
        ),
        (
            lambda folder: (folder / "rank-0000.safetensors").unlink(),
            "rank-0000.safetensors is missing",
        ),
        (
            lambda folder: (folder / "checkpoint.json").unlink(),
            "checkpoint.json is missing or names no files",
        ),
        (
            lambda folder: (folder / "checkpoint.json").write_text("{"),
            "checkpoint.json cannot be read",
        ),
        (
            lambda folder: write_json(folder / "checkpoint.json", {"step": 3, "files": [1]}),
            "`files` is no JSON object",
        ),
        (
            lambda folder: folder.rename(folder.with_name("step-00000004")),
            "is of step 3, its folder is step-00000004",
        ),
    ],
)
def test_a_damaged_checkpoint(run: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    damage(folder)
    checks = [check for check in verify_run(run) if check.name == "checkpoints"]
    assert sorted(check.state for check in checks) == ["fail", "ok"]
    assert (
        message in failures(run)["checkpoints"]
        and "remove the folder" in failures(run)["checkpoints"]
    )


def test_an_unfinished_save_is_ignored(run: Path) -> None:
    (run / "checkpoints" / ".step-00000004").mkdir(parents=True)
    (run / "checkpoints" / ".step-00000004" / "checkpoint.json").write_text("{", encoding="utf-8")
    assert "checkpoints" not in {check.name for check in verify_run(run)}


# No damage is a traceback


def test_names_and_ids_that_no_file_system_or_encoding_takes(run: Path) -> None:
    edit_manifest(run, outputs={"\0": "0" * 64})
    assert "cannot be read (embedded null byte)" in failures(run)["outputs"]
    line = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[1])
    edit_line(run / "feed.jsonl", 2, samples=["\ud800", *line["samples"][1:]])
    assert (
        "feed.jsonl: line 2 is not a JSON object (it holds half of a surrogate pair)"
        in failures(run)["steps"]
    )


def places(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, three levels deep."""
    if isinstance(value, dict) and len(prefix) < 3:
        for name, item in value.items():
            yield (*prefix, name)
            yield from places(item, (*prefix, name))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = new
    return changed


@pytest.mark.parametrize(
    "name",
    [
        "math.json",
        "status.json",
        "manifest.json",
        "certificate.json",
        "attempts/0001/execution.json",
        "metrics.jsonl",
        "feed.jsonl",
    ],
)
def test_any_value_of_any_type_is_noticed_without_a_traceback(
    run: Path, original: Path, name: str
) -> None:
    path = run / name
    text = path.read_text(encoding="utf-8")
    first, rest = text.split("\n", 1) if name.endswith("l") else (text, "")
    value = json.loads(first)
    # Not tied to anything else: free text, and the exit code of a run that has ended.
    free = {("message",), ("exit_code",), ("source",), ("num_samples",)}
    for place in set(places(value)) - free:
        for new in (None, [1], "\0", {"a": {}}, True, 7):
            changed = replaced(value, place, new)
            if json.dumps(changed) == json.dumps(value):
                continue
            path.write_text("\n".join([json.dumps(changed), rest]), encoding="utf-8")
            same = changed == value  # 1 and True
            assert same or failures(run), (place, new)
            for pair in ((run, original), (original, run)):
                with contextlib.suppress(DataError):
                    compare_runs(*pair).report()


def test_a_copy_elsewhere_passes(original: Path, world: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(original, tmp_path / "archive" / original.name))
    copy_world(world, tmp_path / "unused")
    assert failures(moved) == {}
