"""What explains a divergence: each cause is injected alone and comes first."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.diff.compare import compare_runs
from densekit.files.json_files import read_json, write_json
from tests.support.audit import edit_metrics, explaining, samples_of, where
from tests.support.runs import change_entry, flip_byte, train, write_tensors

# One cause at a time


def test_seed_explains_another_order(world: Path, tmp_path: Path) -> None:
    # One process: the order depends on the seed.
    reference = {"reference": {"gpus": 1, "per_device_batch_size": 4}}
    first = train(world, tmp_path / "a", recipe=reference)
    found = compare_runs(first, train(world, tmp_path / "b", recipe={**reference, "seed": 7}))
    assert where(found) == ("ids", 1)
    divergence = found.divergences[0]
    fed = [
        json.loads((Path(path) / "feed.jsonl").read_text(encoding="utf-8").splitlines()[0])
        for path in (found.a, found.b)
    ]
    place = next(
        place for place in range(4) if fed[0]["samples"][place] != fed[1]["samples"][place]
    )
    assert (divergence.a, divergence.b) == (fed[0]["samples"][place], fed[1]["samples"][place])
    assert divergence.detail.startswith(f"place {place + 1} of 4") and divergence.detail.endswith(
        "; another sample"
    )
    assert explaining(found) == ["seed differs: 42 and 7"]
    assert "1. seed differs: 42 and 7 (math.json, recipe.seed)" in found.report()


def test_seed_explains_other_initial_weights(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, recipe={"seed": 7}))
    # Several reference processes: the official order does not depend on the seed.
    assert where(found) == ("loss", 1)
    assert explaining(found)[0] == "seed differs: 42 and 7"
    init = next(cause for cause in found.explanations if cause.topic == "init")
    assert init.evidence.endswith("tensor connector.0.weight: 8 of 8 values differ")


def test_changed_annotation_entry_is_named(run: Path, second: Path, tmp_path: Path) -> None:
    change_entry(second, 12)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    kind, step = where(found)
    assert kind == "ids" and any(sample.startswith("12:") for sample in samples_of(run, step=step))
    assert (
        found.divergences[0].index == "12"
        and "same annotation entry, other content" in found.divergences[0].detail
    )
    assert explaining(found)[0].startswith("annotation entry 12 differs: 12:")
    assert str(second / "data" / "train.json") in found.explanations[0].evidence
    assert f"before that: bitwise equal over {step - 1} steps" in found.report()


def test_changed_entry_contributes_when_the_seed_diverges_first(
    run: Path, second: Path, tmp_path: Path
) -> None:
    change_entry(second, 12)
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"seed": 7}))
    by_kind = {divergence.kind: divergence for divergence in found.divergences}
    assert where(found) == ("loss", 1) and explaining(found)[0] == "seed differs: 42 and 7"
    assert by_kind["ids"].index == "12"
    assert [cause.topic for cause in found.explanations if cause.relevance == "contributes"] == [
        "sample",
        "annotations",
    ]


def test_changed_entry_ranks_before_the_seed_when_the_order_is_the_same(
    run: Path, second: Path, tmp_path: Path
) -> None:
    index = samples_of(run, step=1)[2].partition(":")[0]
    change_entry(second, int(index))
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"seed": 7}))
    assert where(found) == ("ids", 1) and found.divergences[0].index == index
    topics = [cause.topic for cause in found.explanations if cause.relevance == "explains"]
    assert topics == ["sample", "annotations", "seed"]


def test_changed_image_is_named(run: Path, second: Path, tmp_path: Path) -> None:
    flip_byte(second / "data" / "images" / "13.png", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    divergence = found.divergences[0]
    assert divergence.kind == "images" and divergence.index == "13" and divergence.a != divergence.b
    assert [words.partition(":")[0] for words in explaining(found)] == [
        "image of annotation entry 13 differs"
    ]


def test_changed_images_beyond_three_are_counted(run: Path, second: Path, tmp_path: Path) -> None:
    for number in (1, 2, 4, 5, 7):
        flip_byte(second / "data" / "images" / f"{number}.png", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert len(explaining(found)) == 4 and explaining(found)[-1] == "2 more images differ"


def test_learning_rate_explains_the_schedule(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(
        run, train(world, tmp_path, recipe={"optimizer": {"learning_rate": 0.002}})
    )
    assert where(found) == ("lr", 1) and (found.divergences[0].a, found.divergences[0].b) == (
        0.001,
        0.002,
    )
    assert explaining(found) == ["learning rate differs: 0.001 and 0.002"]
    assert [(divergence.kind, divergence.step) for divergence in found.divergences[1:]] == [
        ("loss", 2),
        ("grad_norm", 2),
    ]


def test_rounding_does_not_explain_another_learning_rate(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(
        world, tmp_path, recipe={"optimizer": {"learning_rate": 0.002}}, execution={"world_size": 2}
    )
    causes = compare_runs(run, other).explanations
    assert [(cause.topic, cause.relevance) for cause in causes] == [
        ("schedule", "explains"),
        ("rounding", "unlikely"),
    ]


def test_optimizer_setting_explains_the_second_step(run: Path, world: Path, tmp_path: Path) -> None:
    other = train(
        world, tmp_path, recipe={"optimizer": {"eps": 1e-6}}, environment={"python": "3.12.0"}
    )
    found = compare_runs(run, other)
    assert where(found) == ("loss", 2)
    assert explaining(found) == [
        "`optimizer.eps` differs: 1e-08 and 1e-06",
        'Python: "3.11.7" and "3.12.0"',
    ]


def test_optimizer_setting_does_not_explain_the_first_step(
    run: Path, second: Path, tmp_path: Path
) -> None:
    flip_byte(second / "models" / "tower" / "model.safetensors", -1)
    found = compare_runs(run, train(second, tmp_path / "runs", recipe={"optimizer": {"eps": 1e-6}}))
    assert where(found) == ("loss", 1)
    assert [(cause.topic, cause.relevance) for cause in found.explanations] == [
        ("weights", "explains"),
        ("optimizer", "contributes"),
    ]


def test_divergence_of_the_last_update_is_found_in_the_trained_weights(
    world: Path, tmp_path: Path
) -> None:
    one_step = {"global_batch_size": 24, "reference": {"gpus": 1, "per_device_batch_size": 24}}
    first = train(world, tmp_path / "a", recipe=one_step)
    found = compare_runs(
        first, train(world, tmp_path / "b", recipe={**one_step, "optimizer": {"eps": 1e-6}})
    )
    assert found.first_bit_difference is None and where(found) == ("outputs", 1)
    assert "connector.safetensors" in found.divergences[0].detail
    assert explaining(found) == ["`optimizer.eps` differs: 1e-08 and 1e-06"]


def test_package_version_explains_a_loss(run: Path, world: Path, tmp_path: Path) -> None:
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
        (
            {"devices": [{"name": "A100", "driver": None}]},
            'devices: [] and [{"name": "A100", "driver": null}]',
        ),
        (
            {"variables": {"MKL_CBWR": "COMPATIBLE"}},
            'environment variable MKL_CBWR: not set and "COMPATIBLE"',
        ),
        (
            {"cpu": {"flags": ["avx2", "sse2"]}},
            "CPU flags: avx512f only in a; avx2 only in b",
        ),
        ({"cpu": {"model": "B CPU"}}, "CPU: A CPU and B CPU"),
    ],
)
def test_environment_change_ranks_as_cause(
    run: Path, world: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    other = train(world, tmp_path, environment=change)
    assert compare_runs(run, other).equal
    edit_metrics(other, 3, loss=9.0)
    found = compare_runs(run, other)
    assert where(found) == ("loss", 3) and explaining(found) == [words]


def test_environment_of_an_earlier_attempt_explains_a_loss(
    run: Path, world: Path, tmp_path: Path
) -> None:
    train(world, tmp_path, environment={"packages": {"torch": "2.12.0"}}, stop_after=0)
    shutil.rmtree(tmp_path / run.name / "checkpoints")
    for name in ("metrics.jsonl", "feed.jsonl"):
        (tmp_path / run.name / name).unlink()
    other = train(world, tmp_path)
    assert compare_runs(run, other).explanations == ()
    edit_metrics(other, 3, loss=9.0)
    assert explaining(compare_runs(run, other)) == [
        "b's attempt 1 and its last one: package torch: 2.12.0 and 2.13.0"
    ]


def test_dtype_ranks_before_rounding(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(run, train(world, tmp_path, execution={"dtype": "bf16", "world_size": 2}))
    assert where(found) == ("loss", 1)
    assert explaining(found) == [
        'dtype differs: "fp32" and "bf16"',
        "execution differs: world_size 1 and 2; this changes rounding only",
    ]


def test_flipped_weight_names_its_tensor(run: Path, second: Path, tmp_path: Path) -> None:
    flip_byte(second / "models" / "lm" / "model.safetensors", -1)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert where(found) == ("loss", 1) and len(explaining(found)) == 1
    assert explaining(found)[0].startswith("weight file language_model/model.safetensors differs: ")
    assert explaining(found)[0].endswith("; tensor norm.weight: 1 of 4 values differ")


def test_weight_file_that_changed_since_names_no_tensor(
    run: Path, second: Path, tmp_path: Path
) -> None:
    path = second / "models" / "lm" / "model.safetensors"
    flip_byte(path, -1)
    other = train(second, tmp_path / "runs")
    flip_byte(path, -2)
    assert explaining(compare_runs(run, other))[0].endswith(
        "the files changed since the runs read them"
    )
    path.unlink()
    assert explaining(compare_runs(run, other))[0].endswith("the files are no longer there")


@pytest.mark.parametrize(("content", "kind"), [(b"\x02tokens", "tokens"), (b"\x01tokenz", "loss")])
def test_tokenizer_file_explains_tokens_or_loss(
    run: Path, second: Path, tmp_path: Path, content: bytes, kind: str
) -> None:
    (second / "models" / "lm" / "tokenizer.model").write_bytes(content)
    found = compare_runs(run, train(second, tmp_path / "runs"))
    assert (
        where(found) == (kind, 1) and len(found.explanations) == 1
    )  # not also as a file of the language model
    assert explaining(found)[0].startswith("tokenizer file tokenizer/tokenizer.model differs: ")


def test_another_path_to_the_same_files_explains_nothing(
    run: Path, second: Path, tmp_path: Path
) -> None:
    shutil.copytree(second / "models" / "tower", second / "models" / "tower2")
    other = train(second, tmp_path / "runs", recipe={"models": {"vision_tower": "models:tower2"}})
    edit_metrics(other, 2, loss=9.0)
    found = compare_runs(run, other)
    assert [cause.relevance for cause in found.explanations] == ["unlikely"]
    assert "no recorded difference explains it" in found.report()


def test_connector_groups_explain_a_loss(run: Path, world: Path, tmp_path: Path) -> None:
    found = compare_runs(
        run, train(world, tmp_path, recipe={"connector": {"groups": [[0], [1, 2, 3]]}})
    )
    assert explaining(found) == [
        "`connector.groups` differs: [[0, 1], [2, 3]] and [[0], [1, 2, 3]]"
    ]


def test_initial_weights_that_changed_since_name_no_tensor(
    run: Path, world: Path, tmp_path: Path
) -> None:
    other = train(world, tmp_path, recipe={"seed": 7})
    write_tensors(other / "init.safetensors", {})
    init = next(cause for cause in compare_runs(run, other).explanations if cause.topic == "init")
    assert "tensor" not in init.evidence


def test_run_it_starts_from_explains_only_with_other_initial_weights(run: Path, copy: Path) -> None:
    write_json(copy / "math.json", {**read_json(copy / "math.json"), "starts_from": "5" * 64})
    edit_metrics(copy, 1, loss=9.0)
    # The initial weights are the same.
    assert compare_runs(run, copy).explanations[0].relevance == "unlikely"
    write_json(
        copy / "manifest.json", {**read_json(copy / "manifest.json"), "init_sha256": "6" * 64}
    )
    assert (
        explaining(compare_runs(run, copy))[0]
        == f"the run it starts from differs: null and {'5' * 16}..."
    )


def test_connector_file_explains_only_with_other_initial_weights(run: Path, copy: Path) -> None:
    math = read_json(copy / "math.json")
    write_json(copy / "math.json", {**math, "inputs": {**math["inputs"], "connector": "5" * 64}})
    edit_metrics(copy, 1, loss=9.0)
    words = f"connector file to start from differs: null and {'5' * 16}..."
    found = compare_runs(run, copy)
    assert [(cause.message, cause.relevance) for cause in found.explanations] == [
        (words, "unlikely")
    ]  # the same initial weights
    write_json(
        copy / "manifest.json", {**read_json(copy / "manifest.json"), "init_sha256": "6" * 64}
    )
    assert explaining(compare_runs(run, copy))[0] == words


def test_made_annotations_are_compared_by_the_manifest(
    run: Path, second: Path, tmp_path: Path
) -> None:
    change_entry(second, 12)
    other = train(second, tmp_path / "runs")
    for name in (first := Path(shutil.copytree(run, tmp_path / run.name)), other):
        write_json(name / "math.json", {**read_json(name / "math.json"), "inputs": {}})
    assert "annotations" in [cause.topic for cause in compare_runs(first, other).explanations]
