"""Whole runs through the command line: what a run leaves behind, and what happens when its data is
bad.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from densekit.batching.run_order import RunOrder
from densekit.errors import DataError, UsageError
from densekit.exchange.loading import load_model
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.launch.chain import reproduce
from densekit.model.weights import read_weights
from densekit.runs.layout import CONNECTOR_FILE, RunDir
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.roots import Roots
from densekit.spec.types import IMAGE_TOKEN, LEDGER_ENTRIES
from densekit.train.assembly import build_trainer
from densekit.train.engines.process_group import make_accelerator
from densekit.train.initial_state import load_base, prepare
from densekit.train.inputs import make_reader
from densekit.train.task import train
from densekit.train.trainer import Summary, check_masked
from tests.support.workplace import SMALL, Forked, Workplace

pytestmark = pytest.mark.ranks

FIELDS = {
    "schema",
    "step",
    "loss",
    "lr",
    "grad_norm",
    "updated",
    "overflows",
    "samples",
    "tokens",
    "supervised_tokens",
    "masked_samples",
    "seconds",
    "data_seconds",
    "compute_seconds",
    "tokens_per_second",
    "ids",
    "images",
    "chain",
}


def _metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_behind(workplace: Workplace) -> None:
    run = RunDir(workplace.run_dir("tiny_stage2"))
    assert run.complete
    lines = _metrics(run.path)
    assert [line["step"] for line in lines] == list(range(1, 7)) and all(
        set(line) == FIELDS for line in lines
    )
    assert all(line["samples"] == 16 for line in lines) and lines[0]["lr"] == 0.0
    manifest = read_json(run.path / "manifest.json")
    assert manifest["run"] == run.sha256 and manifest["starts_from"] == run.math.starts_from
    assert RunDir(workplace.run_dir("tiny_stage1")).sha256 == run.math.starts_from
    for name, digest in manifest["outputs"].items():
        assert file_sha256(run.path / name) == digest
    assert {"model/model.safetensors", "model/tokenizer.model", "connector.safetensors"} <= set(
        manifest["outputs"]
    )
    assert "What ran" in (run.path / "report.html").read_text(encoding="utf-8")
    assert set(read_json(run.path / "results.json")) == {"summary"}


def test_stage1_trains_the_connector_alone_and_stage2_starts_from_it(workplace: Workplace) -> None:
    stage1, stage2 = (workplace.run_dir(f"tiny_stage{n}") for n in (1, 2))
    before = read_weights(stage1 / "init.safetensors")
    after = read_weights(stage1 / "connector.safetensors")
    assert all(not torch.equal(before[f"connector.{name}"], value) for name, value in after.items())
    assert not (stage1 / "model").exists()
    start = read_weights(stage2 / "init.safetensors")
    assert all(torch.equal(start[f"connector.{name}"], value) for name, value in after.items())

    roots = Roots(cache=workplace.root / ".cache/densekit")
    base = load_base(RunDir(stage2).math.recipe, roots)
    trained = read_weights(stage2 / "model" / "model.safetensors")
    for name, value in base.vision_tower.state_dict().items():
        assert torch.equal(trained[f"vision_tower.{name}"], value), (
            f"the frozen tower changed: {name}"
        )
    assert not torch.equal(
        trained["language_model.lm_head.weight"], base.language_model.lm_head.weight
    )


@pytest.mark.parametrize("damage", ["gone", "unfinished", "another"])
def test_a_stage1_run_that_is_not_the_right_one_is_refused(
    workplace: Workplace, tmp_path: Path, damage: str
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(workplace.root / "runs", runs)
    (stage1,), (stage2,) = runs.glob("tiny_stage1-*"), runs.glob("tiny_stage2-*")
    execution = read_json(RunDir(stage2).attempt / "execution.json")
    write_json(RunDir(stage2).attempt / "execution.json", {**execution, "starts_from": str(stage1)})
    if damage == "gone":
        shutil.rmtree(stage1)
    elif damage == "unfinished":
        RunDir(stage1).set_status("failed")
    else:
        write_json(
            stage1 / "math.json",
            {**read_json(stage1 / "math.json"), "inputs": {"annotations": "other"}},
        )
    RunDir(stage2).set_status("created")
    with pytest.raises(DataError, match="stage-1 run"):
        train(stage2)
    assert RunDir(stage2).status.state == "failed"


def test_an_attempt_is_not_trained_over(workplace: Workplace) -> None:
    run = workplace.run_dir("tiny_stage2")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="attempt 1 ran before and is complete"):
        train(run)
    assert (run / "metrics.jsonl").read_bytes() == before and RunDir(run).complete


def test_the_ledger_of_a_recipe_reaches_ids_and_weights(workplace: Workplace) -> None:
    math = RunDir(workplace.run_dir("tiny_stage2")).math.recipe
    roots = Roots(cache=workplace.root / ".cache/densekit")
    execution = Execution(micro_batch_size=4)
    for fixed in LEDGER_ENTRIES:
        ledger = {entry: "fixed" if entry == fixed else "faithful" for entry in LEDGER_ENTRIES}
        changed = math.model_copy(update={"ledger": ledger})
        model = prepare(load_base(changed, roots), changed, _init(workplace))
        reader = make_reader(changed, roots)
        order = RunOrder(changed, reader.index.modality_lengths)
        trainer = build_trainer(
            model, reader, order.steps(), changed, execution, make_accelerator(execution)
        )
        assert order.length.tail == ledger["U9"]
        assert (reader.encoder.semantics, trainer.dataset.loss_semantics, trainer.overflow) == (
            ledger["L1"],
            ledger["U8"],
            ledger["L2"],
        )


def _init(workplace: Workplace) -> dict[str, torch.Tensor]:
    return read_weights(workplace.run_dir("tiny_stage2") / "init.safetensors")


def test_a_complete_run_is_not_trained_again(workplace: Workplace) -> None:
    done = workplace.run("tiny_stage2", "--no-evaluation")
    assert done.returncode == 0 and done.stdout.count("already complete") == 2


@pytest.mark.slow
def test_two_processes_train_the_same_run(workplace: Workplace, tmp_path: Path) -> None:
    options = ("--gpus", "2", "--micro-batch", "3", "--workers", "1", "--runs-dir", str(tmp_path))
    done = workplace.run("tiny_stage2", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = tmp_path.glob("tiny_stage2-*")
    assert RunDir(run).sha256 == RunDir(workplace.run_dir("tiny_stage2")).sha256
    found = zip(_metrics(workplace.run_dir("tiny_stage2")), _metrics(run), strict=True)
    for one, two in found:
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        for field in ("samples", "tokens", "supervised_tokens", "lr"):
            assert two[field] == one[field]


def test_workers_change_no_bit(workplace: Workplace, tmp_path: Path) -> None:
    code = reproduce(
        "tiny_stage2",
        overrides=("data.samples=null", *SMALL),
        runs_dir=tmp_path,
        roots=Roots(cache=workplace.root / ".cache/densekit"),
        request=ExecutionRequest(workers=4),
        launcher=Forked(),
    )
    assert code == 0
    (run,), alone = tmp_path.glob("tiny_stage2-*"), workplace.run_dir("tiny_stage2")
    assert RunDir(run).execution.workers == 4 and RunDir(alone).execution.workers == 0
    assert [line["chain"] for line in _metrics(run)] == [line["chain"] for line in _metrics(alone)]
    ours, theirs = (read_weights(folder / CONNECTOR_FILE) for folder in (run, alone))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_messages_train_as_the_same_conversations_do(workplace: Workplace, tmp_path: Path) -> None:
    """JSON Lines of OpenAI's form, the image as a part of a message."""
    roots = Roots(cache=workplace.root / ".cache/densekit")
    alone = RunDir(workplace.run_dir("tiny_stage2"))
    data = alone.math.recipe.data
    lines = []
    for entry in read_json(roots.resolve(data.annotations)):
        messages = []
        for turn in entry["conversations"]:
            content: object = turn["value"]
            if IMAGE_TOKEN in turn["value"]:
                text = turn["value"].removeprefix(IMAGE_TOKEN).strip()
                image = {"type": "image", "image": entry["image"]}
                content = [image, {"type": "text", "text": text}]
            role = {"human": "user", "gpt": "assistant"}[turn["from"]]
            messages.append({"role": role, "content": content})
        lines.append(json.dumps({"id": entry["id"], "messages": messages}))
    (tmp_path / "messages.jsonl").write_text("\n".join(lines))
    shutil.copytree(workplace.root / "runs", tmp_path / "runs")
    code = reproduce(
        "tiny_stage2",
        overrides=(
            "data.samples=null",
            f"data.annotations={tmp_path}/messages.jsonl",
            f"data.images={data.images}",
            *SMALL,
        ),
        runs_dir=tmp_path / "runs",
        roots=roots,
        request=ExecutionRequest(),
        launcher=Forked(),
    )
    (run,) = set((tmp_path / "runs").glob("tiny_stage2-*")) - {tmp_path / "runs" / alone.path.name}
    assert code == 0 and any("image" in line for line in lines)
    for ours, theirs in zip(_metrics(run), _metrics(alone.path), strict=True):
        for field in ("loss", "grad_norm", "tokens", "supervised_tokens", "images"):
            assert ours[field] == theirs[field]
        assert ours["ids"] != theirs["ids"]


def test_a_run_says_who_waited(workplace: Workplace) -> None:
    run = workplace.run_dir("tiny_stage2")
    for line in _metrics(run):
        assert line["compute_seconds"] > 0 <= line["data_seconds"]
        assert line["data_seconds"] + line["compute_seconds"] <= line["seconds"] + 1e-3
        tokens = line["tokens_per_second"] * line["seconds"]
        assert tokens == pytest.approx(line["tokens"], rel=0.02)
    summary = json.loads((run / "results.json").read_text())["summary"]
    for name in ("data_seconds", "compute_seconds"):
        assert summary[name] == pytest.approx(sum(line[name] for line in _metrics(run)), abs=1e-3)
    assert "% of the time, waiting for data " in (RunDir(run).log).read_text()


def test_lora_trains_adapters_and_loads_again(workplace: Workplace) -> None:
    run = RunDir(workplace.run_dir("tiny_stage2_lora"))
    names = {path.name for path in (run.path / "lora").iterdir()}
    assert (
        names == {"adapter_config.json", "adapter_model.safetensors"}
        and not (run.path / "model").exists()
    )
    adapters = read_weights(run.path / "lora" / "adapter_model.safetensors")
    assert all(value.any() for name, value in adapters.items() if "lora_B" in name)
    merged, _ = load_model(run.path)
    base = read_weights(workplace.root / ".cache/densekit/tiny/language_model/model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged.language_model.get_parameter(name), base[name])


def _user_recipe(workplace: Workplace, folder: Path, **changes: object) -> Path:
    """A stage-1 recipe of a user's own: annotation file, image folder and model folders by path."""
    tiny = workplace.root / ".cache/densekit/tiny"
    folder.mkdir()
    entries = json.loads((tiny / "data" / "stage1.json").read_text())[:8]
    images = folder / "images"
    images.mkdir()
    for entry in entries:
        shutil.copy(tiny / "data" / "images" / entry["image"], images / entry["image"])
    (folder / "train.json").write_text(json.dumps(entries))
    recipe = {
        "title": "mine",
        "stage": 1,
        "models": {
            "language_model": str(tiny / "language_model"),
            "vision_tower": str(tiny / "vision_tower"),
        },
        "connector": {"kind": "sti", "layers": [1, 3]},
        "data": {
            "annotations": "train.json",
            "images": "images",
            "template": "plain",
            "image_aspect_ratio": "pad",
        },
        "optimizer": {"learning_rate": "1e-3"},
        "global_batch_size": 4,
        "reference": {"gpus": 2, "per_device_batch_size": 2},
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.slow
def test_a_users_own_recipe_trains(workplace: Workplace, tmp_path: Path) -> None:
    recipe = _user_recipe(workplace, tmp_path / "mine")
    done = workplace.densekit("run", str(recipe), "--runs-dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("mine-*")
    assert [line["samples"] for line in _metrics(run)] == [4, 4]


def test_an_undecodable_image_fails_the_run_with_its_name(
    workplace: Workplace, tmp_path: Path
) -> None:
    recipe = _user_recipe(workplace, tmp_path / "mine")
    image = next((tmp_path / "mine" / "images").iterdir())
    image.write_bytes(image.read_bytes()[:-30])  # its header is whole, so no preflight sees it
    done = workplace.densekit(
        "run", str(recipe), "--workers", "1", "--runs-dir", str(tmp_path / "runs")
    )
    assert done.returncode == 3
    assert (
        image.name in done.stderr and "cannot be decoded" in done.stderr and "sample" in done.stderr
    )
    assert "Traceback" not in done.stderr + done.stdout
    (run,) = (tmp_path / "runs").glob("mine-*")
    status = RunDir(run).status
    assert status.state == "failed" and image.name in status.message
    assert not (run / "connector.safetensors").exists()


def test_too_many_samples_without_labels_stop_a_run() -> None:
    check_masked(Summary(samples=127, masked_samples=127))
    check_masked(Summary(samples=1000, masked_samples=100))
    with pytest.raises(
        DataError, match=r"101 of the first 1000 samples .*\(masked_mismatch 101\).*L1: fixed"
    ):
        check_masked(Summary(samples=1000, masked_samples=101, notes={"masked_mismatch": 101}))


def test_an_image_that_vanished_names_the_entry_and_leaves_no_run(
    workplace: Workplace, tmp_path: Path
) -> None:
    recipe = _user_recipe(workplace, tmp_path / "mine")
    next((tmp_path / "mine" / "images").iterdir()).unlink()
    done = workplace.densekit("run", str(recipe), "--runs-dir", str(tmp_path / "runs"))
    assert done.returncode == 3 and "does not exist" in done.stderr and "entry" in done.stderr
    assert not (tmp_path / "runs").exists()
