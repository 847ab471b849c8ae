"""Real trainings that differ in one thing: `densekit diff` says where they diverge and names it
first.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from densekit.audit.diff.compare import Comparison, compare_runs
from densekit.audit.verify.verify import verify_run
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, read_jsonl, write_json
from densekit.runs.environment import Environment, environment
from densekit.runs.layout import RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.toy.models import train_tokenizer
from densekit.train import task
from tests.support.ranks import run_ranks
from tests.support.training import start_run, train_rank
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks

STEPS = 4  # 48 samples are three steps; the learning rate of the first is 0
Train = Callable[..., Path]


def train(workplace: Workplace, folder: Path, *overrides: str, world_size: int = 1) -> Path:
    """A complete run of `STEPS` steps."""
    steps = f"optimizer.max_steps={STEPS}"
    started = start_run(
        workplace, folder, steps, *overrides, world_size=world_size, save_steps=None
    )
    started.finish()
    return started.run.path


@pytest.fixture(scope="module")
def base(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every other is compared with; nothing may change it."""
    return train(workplace, tmp_path_factory.mktemp("base"))


@pytest.fixture
def again(workplace: Workplace, tmp_path: Path) -> Train:
    return partial(train, workplace, tmp_path / "runs")


@pytest.fixture
def copied(workplace: Workplace, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of the tiny assets, to change."""
    assets = workplace.root / ".cache/densekit/tiny"
    return lambda name: Path(shutil.copytree(assets / name, tmp_path / Path(name).name))


def assert_diverges(found: Comparison, kind: str, step: int, cause: str) -> None:
    """Where two runs diverge, in what, and how the first explanation begins."""
    first = found.divergences[0]
    assert (first.kind, first.step) == (kind, step), found.report()
    explanation = found.explanations[0]
    assert explanation.relevance == "explains", found.report()
    assert explanation.message.startswith(cause), found.report()
    assert step == 1 or f"before that: bitwise equal over {step - 1} step" in "\n".join(
        found.report()
    )


def an_image_of(run: Path, *, step: int) -> str:
    """The annotation entry of the first sample with an image in a step."""
    fed = read_jsonl(run / "feed.jsonl")[step - 1]
    sample = next(
        sample for sample, image in zip(fed["samples"], fed["images"], strict=True) if image
    )
    return str(sample.partition(":")[0])


def entries_of(workplace: Workplace) -> list[dict[str, Any]]:
    return list(
        json.loads(
            (workplace.root / ".cache/densekit/tiny/data/stage2.json").read_text(encoding="utf-8")
        )
    )


def test_identical_runs_have_no_divergence(base: Path, again: Train) -> None:
    found = compare_runs(base, again())
    assert found.equal and found.explanations == ()
    assert found.report()[2:] == [f"bitwise equal over {STEPS} steps", "runs are identical"]


def test_another_seed(base: Path, again: Train) -> None:
    found = compare_runs(base, again("seed=7"))
    assert_diverges(found, "ids", 1, "seed differs: 42 and 7")
    assert "another sample" in found.divergences[0].detail


def test_one_changed_sample(base: Path, again: Train, workplace: Workplace, tmp_path: Path) -> None:
    index = an_image_of(base, step=2)
    entries = entries_of(workplace)
    words = entries[int(index)]["conversations"][1]["value"].split()
    entries[int(index)]["conversations"][1]["value"] = " ".join([*words[:-1], "otherwise."])
    (tmp_path / "changed.json").write_text(json.dumps(entries), encoding="utf-8")
    found = compare_runs(base, again(f"data.annotations={tmp_path / 'changed.json'}"))
    assert_diverges(found, "ids", 2, f"annotation entry {index} differs: {index}:")
    assert (
        found.divergences[0].index == index and "; 1 of them differ;" in found.divergences[0].detail
    )
    assert str(tmp_path / "changed.json") in found.explanations[0].evidence


def test_one_changed_image_byte(
    base: Path, again: Train, workplace: Workplace, copied: Callable[[str], Path]
) -> None:
    index = an_image_of(base, step=3)
    images = copied("data/images")
    with (images / entries_of(workplace)[int(index)]["image"]).open("ab") as file:
        file.write(
            b"\0"
        )  # behind the end of the PNG: the pixels stay the same, and it is found all the same
    found = compare_runs(base, again(f"data.images={images}"))
    users = {
        step["step"]
        for step in read_jsonl(base / "feed.jsonl")
        for sample in step["samples"]
        if sample.startswith(f"{index}:")
    }
    assert_diverges(found, "images", min(users), f"image of annotation entry {index} differs: ")
    assert found.divergences[0].index == index and len(found.divergences) == 1


def test_another_learning_rate(base: Path, again: Train) -> None:
    found = compare_runs(base, again("optimizer.learning_rate=0.0011"))
    assert_diverges(found, "lr", 2, "learning rate differs: 0.001 and 0.0011")
    assert [(later.kind, later.step) for later in found.divergences[1:]] == [
        ("loss", 3),
        ("grad_norm", 3),
    ]


def test_another_version_of_a_package(base: Path, workplace: Workplace, tmp_path: Path) -> None:
    started = start_run(
        workplace, tmp_path, f"optimizer.max_steps={STEPS}", world_size=1, save_steps=None
    )
    started.run.new_attempt(started.execution)
    run_ranks(1, train_with_a_newer_transformers, started.run.path)
    found = compare_runs(base, started.run.path)
    assert_diverges(found, "loss", 1, "package transformers: ")
    assert found.explanations[0].message.endswith(" and 99.0")


def train_with_a_newer_transformers(path: Path) -> None:
    """A trainer whose transformers calls itself another version and computes its norms a little
    differently.
    """

    def newer(devices: Any) -> Environment:
        found = environment(devices)
        return found.model_copy(update={"packages": {**found.packages, "transformers": "99.0"}})

    forward = LlamaRMSNorm.forward
    LlamaRMSNorm.forward = lambda self, states: forward(self, states) * 1.001
    task.environment = newer
    train_rank(path, None)


def test_another_version_of_a_package_that_changed_no_number(base: Path, tmp_path: Path) -> None:
    run = RunDir(Path(shutil.copytree(base, tmp_path / base.name)))
    values = read_json(run.attempt / "environment.json")
    values["packages"]["transformers"] = "99.0"
    write_json(run.attempt / "environment.json", values)
    manifest = read_json(run.path / MANIFEST_FILE)
    write_json(run.path / MANIFEST_FILE, sealed({**manifest, "environment": values}))
    found = compare_runs(base, run.path)
    assert found.equal and [other.relevance for other in found.explanations] == ["unlikely"]
    assert "also differs (unlikely cause): package transformers: " in found.report()[-1]


def test_another_world_size(base: Path, again: Train) -> None:
    found = compare_runs(base, again(world_size=2))
    assert found.equal and found.first_bit_difference is not None
    assert found.report()[3] == "runs do not diverge"
    assert (
        "execution differs: world_size 1 and 2; " in found.report()[4] and len(found.report()) == 5
    )


def test_one_flipped_weight(base: Path, again: Train, copied: Callable[[str], Path]) -> None:
    folder = copied("language_model")
    flip_sign(folder / "model.safetensors", "model.norm.weight")
    found = compare_runs(base, again(f"models.language_model={folder}"))
    assert_diverges(found, "loss", 1, "weight file language_model/model.safetensors differs: ")
    assert found.explanations[0].message.endswith(
        "; tensor model.norm.weight: 1 of 128 values differ"
    )


def flip_sign(path: Path, name: str) -> None:
    """Change the sign of the first value of a tensor, and not another byte of the file."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    end = 8 + size + json.loads(data[8 : 8 + size])[name]["data_offsets"][0] + 4
    data[end - 1] ^= 0x80
    path.write_bytes(data)
    with safe_open(path, "pt") as file:
        assert (file.get_tensor(name) < 0).sum() == 1


def test_another_tokenizer_file(
    base: Path, again: Train, workplace: Workplace, copied: Callable[[str], Path]
) -> None:
    folder = copied("language_model")
    lines = (
        (workplace.root / ".cache/densekit/tiny/data/text.txt")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    config = (folder / "tokenizer_config.json").read_bytes()
    train_tokenizer(lines, folder)  # without the system text that the first one saw
    assert (folder / "tokenizer_config.json").read_bytes() == config
    found = compare_runs(base, again(f"models.tokenizer={folder}"))
    assert_diverges(found, "tokens", 1, "tokenizer file tokenizer/tokenizer.model differs: ")


def test_a_complete_run_verifies(base: Path, workplace: Workplace) -> None:
    for run in (base, workplace.run_dir("tiny_stage1"), workplace.run_dir("tiny_stage2")):
        checks = verify_run(run)
        assert [check for check in checks if check.state != "ok"] == []
        assert len({check.name for check in checks}) >= 11
        assert {"results.json", "connector.safetensors"} <= set(
            read_json(run / MANIFEST_FILE)["outputs"]
        )


def test_a_replay(workplace: Workplace, tmp_path: Path) -> None:
    run = workplace.run_dir("tiny_stage2")
    done = workplace.densekit("replay", str(run), "--runs-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(
        "bitwise equal over 6 steps\nruns are identical\n"
        "the replay is bitwise equal to the run, trained weights included\n"
    )
    made = RunDir(tmp_path / f"{run.name}.replay1")
    assert made.sha256 == RunDir(run).sha256 and made.complete
    assert {check.state for check in verify_run(made.path)} == {"ok"}
    outputs = [read_json(path / MANIFEST_FILE)["outputs"] for path in (run, made.path)]
    assert outputs[0].keys() == outputs[1].keys()
