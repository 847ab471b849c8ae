"""Comparing two runs: where they part, by what, and which cause comes first. Each cause is injected
alone.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.diff.compare import Comparison, compare_runs
from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.runs.records import chain_next
from tests.support.runs import (
    STEPS,
    change_entry,
    copy_world,
    flip_byte,
    make_world,
    train,
    write_tensors,
)

Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("worlds") / "first")


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every other is compared with; nothing may change it."""
    return train(world, tmp_path_factory.mktemp("first"))


@pytest.fixture
def second(world: Path, tmp_path: Path) -> Path:
    """A copy of the first world, to change something in."""
    return copy_world(world, tmp_path / "second")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the first run, to damage."""
    return Path(shutil.copytree(run, tmp_path / run.name))


def explaining(found: Comparison) -> list[str]:
    return [cause.words for cause in found.causes if cause.bearing == "explains"]


def where(found: Comparison) -> tuple[str, int]:
    return found.partings[0].kind, found.partings[0].step


def samples_of(run: Path, *, step: int) -> list[str]:
    lines = (run / "feed.jsonl").read_text(encoding="utf-8").splitlines()
    samples: list[str] = json.loads(lines[step - 1])["samples"]
    return samples


def edit_metrics(run: Path, step: int, **values: Any) -> None:
    """Change a line of metrics.jsonl and chain everything anew, as a run with these numbers would
    have.
    """
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines[step - 1] |= values
    chain = RunDir(run).sha256
    for line in lines:
        chain = line["chain"] = chain_next(chain, line)
    (run / "metrics.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8"
    )


# Equal runs


def test_a_run_and_its_repetition(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path))
    assert found.equal and found.first_bit_difference is None and found.steps == STEPS
    assert found.report()[2:] == ["equal to the last bit over 6 steps", "nothing to report"]


def test_another_world_size_is_nothing_to_report(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(world, tmp_path, execution={"gpus": 2, "micro_batches": [[2], [2]], "workers": 3})
    found = compare_runs(run, other)
    assert found.equal and explaining(found) == []
    assert found.report()[2:] == [
        "equal within 1e-05 over 6 steps; first bit difference at step 1",
        "nothing to report",
        "differs, but explains nothing seen: execution differs: 1 process and 2; micro_batches absent and [[2], [2]]; "
        "this alone changes only rounding (execution)",
    ]


def test_differences_without_consequence_are_told_last(
    run: Path, second: Path, tmp_path: Path
) -> None:
    (second / "models" / "lm" / "README.md").write_text("hello", encoding="utf-8")
    other = train(
        second,
        tmp_path / "runs",
        recipe={"name": "renamed"},
        environment={"packages": {"pytest": "9.1"}},
    )
    found = compare_runs(run, other)
    assert found.equal and {cause.bearing for cause in found.causes} == {"nothing"}
    assert found.report()[3:] == [
        "nothing to report",
        'differs, but explains nothing seen: `name` differs: "made" and "renamed" (math.json, recipe.name)',
        *[line for line in found.report() if "README.md" in line],
        "differs, but explains nothing seen: other packages: pytest 9.0.0 and 9.1 (environment, packages)",
    ]


# One cause at a time


def test_another_seed_in_the_order(world: Path, tmp_path: Path) -> None:
    reference = {
        "reference": {"gpus": 1, "per_device_batch_size": 4}
    }  # one process: the order hangs on the seed
    first = train(world, tmp_path / "a", recipe=reference)
    found = compare_runs(first, train(world, tmp_path / "b", recipe={**reference, "seed": 7}))
    assert where(found) == ("ids", 1)
    parting = found.partings[0]
    fed = [
        json.loads((Path(path) / "feed.jsonl").read_text(encoding="utf-8").splitlines()[0])
        for path in (found.a, found.b)
    ]
    place = next(
        place for place in range(4) if fed[0]["samples"][place] != fed[1]["samples"][place]
    )
    assert (parting.a, parting.b) == (fed[0]["samples"][place], fed[1]["samples"][place])
    assert parting.detail.startswith(f"place {place + 1} of 4") and parting.detail.endswith(
        "; another sample"
    )
    assert explaining(found) == ["the seed differs: 42 and 7"]
    assert "1. the seed differs: 42 and 7 (math.json, recipe.seed)" in found.report()


def test_another_seed_in_the_initial_weights(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"seed": 7}))
    assert where(found) == (
        "loss",
        1,
    )  # several reference processes: the official order does not hang on the seed
    assert explaining(found)[0] == "the seed differs: 42 and 7"
    init = next(cause for cause in found.causes if cause.topic == "init")
    assert init.evidence.endswith("tensor connector.0.weight: 8 of 8 values differ")


def test_one_changed_sample(run: Path, second: Path, tmp_path: Path) -> None:
    change_entry(second, 12)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    kind, step = where(found)
    assert kind == "ids" and any(sample.startswith("12:") for sample in samples_of(run, step=step))
    assert (
        found.partings[0].index == "12"
        and "same entry index, changed content" in found.partings[0].detail
    )
    assert explaining(found)[0].startswith("sample 12's entry changed: 12:")
    assert str(second / "data" / "train.json") in found.causes[0].evidence
    assert f"before that: equal to the last bit over {step - 1} steps" in found.report()


def test_a_changed_sample_comes_before_a_seed_that_moved_nothing(
    run: Path, second: Path, tmp_path: Path
) -> None:
    change_entry(second, 12)
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"seed": 7}))
    by_kind = {parting.kind: parting for parting in found.partings}
    assert where(found) == ("loss", 1) and explaining(found)[0] == "the seed differs: 42 and 7"
    assert by_kind["ids"].index == "12"
    assert [cause.topic for cause in found.causes if cause.bearing == "adds"] == [
        "sample",
        "annotations",
    ]


def test_a_changed_sample_comes_before_a_seed_when_the_order_held(
    run: Path, second: Path, tmp_path: Path
) -> None:
    index = samples_of(run, step=1)[2].partition(":")[0]
    change_entry(second, int(index))
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"seed": 7}))
    assert where(found) == ("ids", 1) and found.partings[0].index == index
    topics = [cause.topic for cause in found.causes if cause.bearing == "explains"]
    assert topics == ["sample", "annotations", "seed"]


def test_one_changed_image_byte(run: Path, second: Path, tmp_path: Path) -> None:
    flip_byte(second / "data" / "images" / "13.png", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    parting = found.partings[0]
    assert parting.kind == "images" and parting.index == "13" and parting.a != parting.b
    assert [words.partition(":")[0] for words in explaining(found)] == [
        "the image of sample 13 changed"
    ]


def test_many_changed_images_are_counted(run: Path, second: Path, tmp_path: Path) -> None:
    for number in (1, 2, 4, 5, 7):
        flip_byte(second / "data" / "images" / f"{number}.png", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert len(explaining(found)) == 4 and explaining(found)[-1] == "2 more images changed"


def test_another_learning_rate(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(
        run, train(world, tmp_path, recipe={"optimizer": {"learning_rate": 0.002}})
    )
    assert where(found) == ("lr", 1) and (found.partings[0].a, found.partings[0].b) == (
        0.001,
        0.002,
    )
    assert explaining(found) == ["the learning rate differs: 0.001 and 0.002"]
    assert [(parting.kind, parting.step) for parting in found.partings[1:]] == [
        ("loss", 2),
        ("grad_norm", 2),
    ]


def test_rounding_is_no_cause_of_another_learning_rate(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(
        world, tmp_path, recipe={"optimizer": {"learning_rate": 0.002}}, execution={"gpus": 2}
    )
    causes = compare_runs(run, other).causes
    assert [(cause.topic, cause.bearing) for cause in causes] == [
        ("schedule", "explains"),
        ("rounding", "nothing"),
    ]


def test_an_optimiser_setting_shows_from_the_second_step(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(
        world, tmp_path, recipe={"optimizer": {"eps": 1e-6}}, environment={"python": "3.12.0"}
    )
    found = compare_runs(run, other)
    assert where(found) == ("loss", 2)
    assert explaining(found) == [
        "`optimizer.eps` differs: 1e-08 and 1e-06",
        'Python: "3.11.7" and "3.12.0"',
    ]


def test_the_optimiser_is_no_cause_at_the_first_step(
    run: Path, second: Path, tmp_path: Path
) -> None:
    flip_byte(second / "models" / "tower" / "model.safetensors", -1)
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"optimizer": {"eps": 1e-6}}))
    assert where(found) == ("loss", 1)
    assert [(cause.topic, cause.bearing) for cause in found.causes] == [
        ("weights", "explains"),
        ("optimizer", "adds"),
    ]


def test_the_last_update_shows_in_the_trained_weights(world: Path, tmp_path: Path) -> None:
    one_step = {"global_batch_size": 24, "reference": {"gpus": 1, "per_device_batch_size": 24}}
    first = train(world, tmp_path / "a", recipe=one_step)
    found = compare_runs(
        first, train(world, tmp_path / "b", recipe={**one_step, "optimizer": {"eps": 1e-6}})
    )
    assert found.first_bit_difference is None and where(found) == ("outputs", 1)
    assert "connector.safetensors" in found.partings[0].detail
    assert explaining(found) == ["`optimizer.eps` differs: 1e-08 and 1e-06"]


def test_another_package_version(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(
        world, tmp_path, environment={"packages": {"transformers": "5.23.0", "pytest": "9.1"}}
    )
    found = compare_runs(run, other)
    assert where(found) == ("loss", 1)
    assert explaining(found) == [
        "package transformers: 5.22.0 and 5.23.0",
        "other packages: pytest 9.0.0 and 9.1",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"git": {"commit": "d" * 40}}, f"git: {'c' * 40} and {'d' * 40}"),
        ({"git": {"dirty": True}}, f"git: {'c' * 40} and {'c' * 40} with uncommitted changes"),
        ({"git": None}, f"git: {'c' * 40} and no git"),
        ({"image": "sha256:1"}, 'container image: null and "sha256:1"'),
        ({"platform": "Darwin"}, 'platform: "Linux" and "Darwin"'),
        ({"devices": [{"name": "A100"}]}, 'devices: [] and [{"name": "A100"}]'),
    ],
)
def test_surroundings_explain_a_loss(
    run: Path, world: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    other = train(world, tmp_path, environment=change)
    assert compare_runs(run, other).equal
    edit_metrics(other, 3, loss=9.0)
    found = compare_runs(run, other)
    assert where(found) == ("loss", 3) and explaining(found) == [words]


def test_an_earlier_attempt_in_other_surroundings(run: Path, world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, environment={"packages": {"torch": "2.12.0"}}, stop_after=0)
    shutil.rmtree(tmp_path / run.name / "checkpoints")
    for name in ("metrics.jsonl", "feed.jsonl"):
        (tmp_path / run.name / name).unlink()
    other = train(world, tmp_path)
    assert compare_runs(run, other).causes == ()
    edit_metrics(other, 3, loss=9.0)
    assert explaining(compare_runs(run, other)) == [
        "b's attempt 1 and its last: package torch: 2.12.0 and 2.13.0"
    ]


def test_execution_is_the_last_explanation_and_dtype_a_real_one(
    run: Path, world: Path, tmp_path: Path
) -> None:
    found = compare_runs(run, train(world, tmp_path, execution={"dtype": "bf16", "gpus": 2}))
    assert where(found) == ("loss", 1)
    assert explaining(found) == [
        'dtype differs: "fp32" and "bf16"',
        "execution differs: 1 process and 2; this alone changes only rounding",
    ]


def test_one_flipped_weight(run: Path, second: Path, tmp_path: Path) -> None:
    flip_byte(second / "models" / "lm" / "model.safetensors", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert where(found) == ("loss", 1) and len(explaining(found)) == 1
    assert explaining(found)[0].startswith(
        "a weight file differs: language_model/model.safetensors: "
    )
    assert explaining(found)[0].endswith("; tensor norm.weight: 1 of 4 values differ")


def test_a_weight_file_that_changed_since_names_no_tensor(
    run: Path, second: Path, tmp_path: Path
) -> None:
    path = second / "models" / "lm" / "model.safetensors"
    flip_byte(path, -1)
    other = train(second, tmp_path / "runs")
    flip_byte(path, -2)
    assert explaining(compare_runs(run, other))[0].endswith(
        "the files are no longer what both runs read"
    )
    path.unlink()
    assert explaining(compare_runs(run, other))[0].endswith("the files are no longer there")


@pytest.mark.parametrize(("content", "kind"), [(b"\x02tokens", "tokens"), (b"\x01tokenz", "loss")])
def test_another_tokenizer_file(
    run: Path, second: Path, tmp_path: Path, content: bytes, kind: str
) -> None:
    (second / "models" / "lm" / "tokenizer.model").write_bytes(content)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert (
        where(found) == (kind, 1) and len(found.causes) == 1
    )  # not also as a file of the language model
    assert explaining(found)[0].startswith(
        "the tokenizer file tokenizer.model differs (models.tokenizer): "
    )


def test_a_path_that_leads_to_the_same_files_explains_nothing(
    run: Path, second: Path, tmp_path: Path
) -> None:
    shutil.copytree(second / "models" / "tower", second / "models" / "tower2")
    other = train(second, tmp_path / "runs", recipe={"models": {"vision_tower": "models:tower2"}})
    edit_metrics(other, 2, loss=9.0)
    found = compare_runs(run, other)
    assert [cause.bearing for cause in found.causes] == ["nothing"]
    assert "no cause is visible in what the two runs recorded" in found.report()


def test_another_connector_recipe(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(
        run, train(world, tmp_path, recipe={"connector": {"groups": [[0], [1, 2, 3]]}})
    )
    assert explaining(found) == [
        "`connector.groups` differs: [[0, 1], [2, 3]] and [[0], [1, 2, 3]]"
    ]


# Lengths and overflows


def test_a_run_that_stopped(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, stop_after=4))
    assert where(found) == ("length", 5) and (found.partings[0].a, found.partings[0].b) == (6, 4)
    assert explaining(found) == ["b is preempted after 4 steps: asked to stop"]


def test_more_epochs(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"optimizer": {"epochs": 2}}))
    assert where(found) == ("lr", 2) and ("length", 7) in [
        (parting.kind, parting.step) for parting in found.partings
    ]
    assert explaining(found) == ["`optimizer.epochs` differs: 1 and 2"]


def test_an_overflow(run: Path, copy: Path) -> None:
    edit_metrics(copy, 3, grad_norm=None, updated=False, overflows=1)
    found = compare_runs(run, copy)
    assert [(parting.kind, parting.step) for parting in found.partings] == [
        ("grad_norm", 3),
        ("updated", 3),
    ]
    assert found.partings[0].b is None
    assert (
        found.partings[1]
        .words()
        .endswith("updated True, overflows 0 and updated False, overflows 1")
    )


# Tolerances


@pytest.mark.parametrize(
    ("field", "a", "b", "equal"),
    [
        ("loss", 0.5, 0.500009, True),
        ("loss", 0.5, 0.500011, False),
        ("loss", 100.0, 100.0009, True),
        ("loss", 100.0, 100.0011, False),
        ("grad_norm", 100.0, 100.0009, True),
        ("grad_norm", 0.01, 0.010001, False),
        ("grad_norm", 0.0, 0.0, True),
        ("grad_norm", 0.0, 1e-9, False),
        ("grad_norm", None, None, True),
        ("grad_norm", 1.0, None, False),
        ("loss", float("nan"), float("nan"), True),
        ("loss", float("inf"), 1.0, False),
        ("loss", float("nan"), 1.0, False),
        ("lr", 1e-3, 1e-3 * (1 + 1e-12), True),
        ("lr", 1e-3, 1e-3 * (1 + 1e-8), False),
    ],
)
def test_when_numbers_part(
    run: Path, copy: Path, tmp_path: Path, field: str, a: float | None, b: float | None, equal: bool
) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other" / copy.name))
    edit_metrics(copy, 3, **{field: a})
    edit_metrics(other, 3, **{field: b})
    found = compare_runs(copy, other)
    assert found.equal == equal
    assert found.first_bit_difference == (None if repr(a) == repr(b) else 3)
    if not equal:
        assert where(found) == (field, 3)


def test_the_tolerance_is_a_choice(run: Path, copy: Path) -> None:
    edit_metrics(copy, 2, loss=5.0)
    assert not compare_runs(run, copy).equal
    assert compare_runs(run, copy, tolerance=1.0).equal
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="tolerance"):
            compare_runs(run, copy, tolerance=tolerance)


def test_json_holds_everything(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"seed": 7}))
    values = json.loads(json.dumps(found.as_json()))
    assert (
        values["equal"] is False
        and values["steps"] == 6
        and values["partings"][0]["kind"] == "loss"
    )
    assert values["causes"][0] == {
        "bearing": "explains",
        "topic": "seed",
        "words": "the seed differs: 42 and 7",
        "evidence": "math.json, recipe.seed",
    }


# Damaged and incomplete directories


def test_a_feed_that_is_gone_names_no_sample(run: Path, second: Path, tmp_path: Path) -> None:
    change_entry(second, 12)
    other = train(second, tmp_path / "runs")
    (other / "feed.jsonl").unlink()
    found = compare_runs(run, other)
    assert (
        found.partings[0].kind == "ids"
        and f"{other}/feed.jsonl lacks this step" in found.partings[0].detail
    )
    assert explaining(found)[0].startswith("the annotation file differs")


def test_a_feed_that_does_not_show_what_the_metrics_say(run: Path, copy: Path) -> None:
    edit_metrics(copy, 2, ids="0" * 64)
    assert "both feed.jsonl list the same" in compare_runs(run, copy).partings[0].detail


def test_a_run_without_a_manifest_is_compared_by_its_attempt(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(world, tmp_path, environment={"packages": {"torch": "3"}}, stop_after=2)
    (other / "manifest.json").unlink()
    assert "package torch: 2.13.0 and 3" in [
        cause.words for cause in compare_runs(run, other).causes
    ]


def test_two_runs_without_a_step(world: Path, tmp_path: Path) -> None:
    runs = [train(world, tmp_path / name, stop_after=0) for name in ("a", "b")]
    with pytest.raises(DataError, match=r"neither .* nor .* has a step"):
        compare_runs(*runs)


def test_no_run_directory(run: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"is no run directory: it has no math\.json"):
            compare_runs(run, path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("metrics.jsonl", lambda text: text[:-20], r"metrics\.jsonl: line 6 is not a JSON object"),
        (
            "metrics.jsonl",
            lambda text: "[1]\n" + text,
            r"metrics\.jsonl: line 1 is not a JSON object",
        ),
        ("metrics.jsonl", lambda text: text.split("\n", 1)[1], r"metrics\.jsonl: line 1 is step 2"),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss"', '"lost"', 1),
            r"metrics\.jsonl: line 1 has no loss",
        ),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss": 2', '"loss": "2"+', 1),
            r"line 1 is not a JSON object",
        ),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss": 2', '"loss": true, "x": 2'),
            r"has a loss that is no num",
        ),
        ("feed.jsonl", lambda text: text[:-20], r"feed\.jsonl: line 6 is not a JSON object"),
        (
            "feed.jsonl",
            lambda text: text.replace("samples", "simples"),
            r"feed\.jsonl: line 1 is not step 1",
        ),
        (
            "feed.jsonl",
            lambda text: text.replace('"images": [', '"images": [null, '),
            r"line 1 is not step 1",
        ),
        ("math.json", lambda text: text[:50], r"math\.json cannot be read"),
        (
            "math.json",
            lambda text: text.replace('"schema": 2', '"schema": 3'),
            r"math\.json has schema 3",
        ),
        ("status.json", lambda text: "[]", r"status\.json must hold a JSON object"),
        ("manifest.json", lambda text: text[:50], r"manifest\.json cannot be read"),
        (
            "manifest.json",
            lambda text: '{"models": 3, "execution": {"gpus": 1}}',
            "`models` is no JSON object",
        ),
    ],
)
def test_damage_is_named(
    run: Path, copy: Path, name: str, damage: Callable[[str], str], message: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    (copy / name).write_text(damage(text), encoding="utf-8")
    assert damage(text) != text
    with pytest.raises(DataError, match=message):
        compare_runs(run, copy)
    with pytest.raises(DataError, match=message):
        compare_runs(copy, run)


def test_init_weights_that_changed_since_name_no_tensor(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(world, tmp_path, recipe={"seed": 7})
    write_tensors(other / "init.safetensors", {})
    init = next(cause for cause in compare_runs(run, other).causes if cause.topic == "init")
    assert "tensor" not in init.evidence


def test_another_start(run: Path, copy: Path) -> None:
    write_json(copy / "math.json", {**read_json(copy / "math.json"), "starts_from": "5" * 64})
    edit_metrics(copy, 1, loss=9.0)
    assert (
        compare_runs(run, copy).causes[0].bearing == "nothing"
    )  # the initial weights are the same
    write_json(
        copy / "manifest.json", {**read_json(copy / "manifest.json"), "init_sha256": "6" * 64}
    )
    assert (
        explaining(compare_runs(run, copy))[0]
        == f"the run it starts from differs: null and {'5' * 16}..."
    )


def test_another_connector_file(run: Path, copy: Path) -> None:
    math = read_json(copy / "math.json")
    write_json(copy / "math.json", {**math, "inputs": {**math["inputs"], "connector": "5" * 64}})
    edit_metrics(copy, 1, loss=9.0)
    words = f"the connector file to start from differs: null and {'5' * 16}..."
    found = compare_runs(run, copy)
    assert [(cause.words, cause.bearing) for cause in found.causes] == [
        (words, "nothing")
    ]  # the same initial weights
    write_json(
        copy / "manifest.json", {**read_json(copy / "manifest.json"), "init_sha256": "6" * 64}
    )
    assert explaining(compare_runs(run, copy))[0] == words


def test_annotations_that_the_kit_made_are_compared_by_the_manifest(
    run: Path, second: Path, tmp_path: Path
) -> None:
    change_entry(second, 12)
    other = train(second, tmp_path / "runs")
    for name in (first := Path(shutil.copytree(run, tmp_path / run.name)), other):
        write_json(name / "math.json", {**read_json(name / "math.json"), "inputs": {}})
    assert "annotations" in [cause.topic for cause in compare_runs(first, other).causes]
