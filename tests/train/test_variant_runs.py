"""Whole runs of variants: killed, they resume to the last bit; what they leave is asked, evaluated
and exported.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml

from densekit.chat.conversation import Conversation
from densekit.data.pixels import open_image
from densekit.errors import DataError
from densekit.exchange.export.exporting import export_model
from densekit.exchange.pipeline import Pipeline, load_pipeline
from densekit.files.json_files import read_jsonl
from densekit.model.init import initial_projector
from densekit.model.projector import Projector
from densekit.model.weights import read_weights, save_weights
from densekit.recipes.load import load_recipe
from densekit.spec.connector import Connector
from densekit.spec.exchange import ExportRequest
from densekit.spec.mining import Mining
from tests.support.evaluating import ask
from tests.support.paths import GOLDEN_EXCHANGE
from tests.support.second_tower import drawn_mining, open_clip
from tests.support.training import Kill, Started, assert_equal, start_run
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks

TILE = 56
SIZES = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]
TILES = (
    "data.image_aspect_ratio=anyres",
    f"data.anyres={{pinpoints: {SIZES}, merge: spatial_unpad}}",
    "data.max_length=320",
)
LORA = "lora={r: 4, alpha: 8}"
LEARNED = {
    "linear": "{kind: dci_linear, groups: [[0, 1, 2], [3, 4, 5]], "
    "learned: {shared: false, high_level: true, bias: true}}",
    "convolution": "{kind: sci_conv2d, layers: [1, 3], "
    "learned: {shared: true, high_level: true, bias: true}, reduce_tokens: after_projector}",
}
LEARNED["fewer tokens"] = (
    "{kind: dci, groups: [[0, 1, 2], [3, 4, 5]], reduce_tokens: after_projector}"
)
FOUR_BY_FOUR = GOLDEN_EXCHANGE / "base" / "models" / "clip_tiny"
SLOW = pytest.mark.slow


def overrides_of(name: str, folder: Path) -> list[str]:
    """What `--set` takes of a variant."""
    if name.startswith("tiles"):
        return [*TILES, *([LORA] if name == "tiles, LoRA" else [])]
    if name == "tower":
        return ["optimizer.tower_learning_rate=1e-3"]
    if name == "two towers":
        return two_towers(folder)
    connector = Connector.model_validate(yaml.safe_load(LEARNED[name]))
    even = connector.reduce_tokens != "none"  # the tiny tower has 7 x 7 patches
    with torch.device("meta"):
        projector = Projector(connector, 32 if even else 96, 128)
    save_weights(initial_projector(projector, seed=3), folder / "start.safetensors")
    return [
        f"connector={LEARNED[name]}",
        f"models.connector={folder / 'start.safetensors'}",
        *([f"models.vision_tower={FOUR_BY_FOUR}"] if even else []),
    ]


def two_towers(folder: Path) -> list[str]:
    """A second tower of four positions a side in each of the tiny tower's 7 x 7 patches."""
    mining = {"image_size": 112, "window": 4, "drop_path": 0}
    spec = load_recipe("tiny_stage2").connector.model_copy(
        update={"mining": Mining.model_validate(mining)}
    )
    drawn = drawn_mining(spec, 96, 128)
    weights = {key.removeprefix("connector."): value for key, value in drawn.items()}
    save_weights(weights, folder / "start.safetensors")
    return [
        f"models.high_resolution_tower={open_clip(folder / 'convnext')}",
        f"models.connector={folder / 'start.safetensors'}",
        f"connector.mining={json.dumps(mining)}",
    ]


def start(workplace: Workplace, folder: Path, name: str, zero_stage: int = 0) -> Started:
    overrides = overrides_of(name, folder.parent)  # one file to start from, one math
    return start_run(workplace, folder, *overrides, zero_stage=zero_stage)


@pytest.mark.parametrize(
    ("name", "zero_stage"),
    [
        ("tiles, LoRA", 0),
        pytest.param("tiles", 0, marks=SLOW),
        pytest.param("tiles", 3, marks=SLOW),
        pytest.param("linear", 3, marks=SLOW),
        pytest.param("convolution", 0, marks=SLOW),
    ],
)
def test_a_killed_run_resumes_to_the_last_bit(
    workplace: Workplace, tmp_path: Path, name: str, zero_stage: int
) -> None:
    whole = start(workplace, tmp_path / "whole", name, zero_stage)
    whole.finish()
    killed = start(workplace, tmp_path / "killed", name, zero_stage)
    assert killed.attempt(Kill(0, 8))[0].exit_code == -9
    killed.finish()
    assert_equal(killed, whole)
    trained = killed.weights()
    drawn = read_weights(killed.run.path / "init.safetensors")
    own = {"newline.safetensors:weight": "image_newline.weight"} if "tiles" in name else {}
    own |= {n: n.replace(".safetensors:", ".", 1) for n in trained if ":connector." in n}
    assert own
    for after, before in own.items():
        assert not torch.equal(trained[after], drawn[before]), after


OFFICIAL, STOCK = "official", "llava-hf"
REFUSED = {
    ("tower", OFFICIAL): "the vision tower was trained too",
    ("linear", OFFICIAL): "dci_linear trains a module, which the official code never did",
    ("linear", STOCK): "dci_linear cannot be written for stock transformers: it has a trainable",
    ("convolution", OFFICIAL): "sci_conv2d trains a module",
    ("convolution", STOCK): "sci_conv2d cannot be written .* trainable module",
    ("fewer tokens", OFFICIAL): "dci reduces the tokens of an image",
    ("fewer tokens", STOCK): "dci cannot be written .* it reduces the tokens",
    ("two towers", OFFICIAL): "the official one does not",
    ("two towers", STOCK): "its Llava has no second tower",
}
"""What a format cannot hold, and the reason that is said."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["tiles", "tiles, LoRA", "tower", "linear", "convolution", "fewer tokens", "two towers"],
)
def test_what_a_run_leaves_is_asked_and_exported(
    workplace: Workplace, tmp_path: Path, name: str
) -> None:
    """Each export answers stored prompts in a fresh process as the run does, or is refused."""
    (tmp_path / "of").mkdir()
    overrides = [*overrides_of(name, tmp_path / "of"), "optimizer.max_steps=3"]
    run = start_run(workplace, tmp_path / "of" / "run", *overrides, world_size=1)
    run.finish()
    asked = answer(load_pipeline(run.run.path), workplace)
    for format_ in (OFFICIAL, STOCK, "densekit"):
        to = tmp_path / f"llava-lora-{format_}"
        merges = "LoRA" in name and format_ != OFFICIAL
        given = {"source": run.run.path, "to": to, "format": format_, "merge_lora": merges}
        request = ExportRequest.model_validate(given)
        if (name, format_) in REFUSED:
            with pytest.raises(DataError, match=REFUSED[name, format_]):
                export_model(request)
            assert not to.exists()
            continue
        assert export_model(request)[1].endswith("greedy ids equal")
        if format_ == "densekit":
            assert answer(load_pipeline(to), workplace) == asked


def answer(pipeline: Pipeline, workplace: Workplace) -> tuple[int, ...]:
    """To a question about a picture of the tiny data."""
    (path, *_) = sorted((workplace.root / ".cache/densekit/tiny/data/images").iterdir())
    (found,) = pipeline.answers(
        [pipeline.question("What is shown?", open_image(path))], max_new_tokens=8
    )
    return found.ids


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiles", "tiles, LoRA", "two towers"])
def test_held_out_questions_are_asked_as_the_model_was_trained(
    workplace: Workplace, tmp_path: Path, name: str
) -> None:
    (tmp_path / "of").mkdir()
    data = workplace.root / ".cache" / "densekit" / "tiny" / "data"
    probe = f"probe={{questions: {data / 'held_out.json'}, images: {data / 'images'}}}"
    overrides = [*overrides_of(name, tmp_path / "of"), probe, "optimizer.max_steps=2"]
    run = start_run(workplace, tmp_path / "of" / "run", *overrides, world_size=1)
    run.finish()
    evaluation = ask(run.run.path)
    assert {
        each.protocol.image_aspect_ratio for each in evaluation.folder.evaluation.benchmarks
    } == {"anyres" if "tiles" in name else "pad"}
    evaluation.attempt(2)
    lines = read_jsonl(evaluation.folder.answers("held_out"))
    questions = json.loads((data / "held_out.json").read_text())
    pipeline = load_pipeline(run.run.path)
    for line in lines[:3]:
        entry = questions[int(line["question_id"])]
        text = entry["conversations"][0]["value"]
        image = data / "images" / entry["image"]
        prompt = pipeline.prompt([("human", text)], open_image(image))
        (found,) = pipeline.answers([prompt], max_new_tokens=len(line["ids"]))
        assert [*found.ids] == line["ids"]
        talk = Conversation(pipeline, max_new_tokens=len(line["ids"]), temperature=0)
        talk.look_at(image)
        said = talk.ask(text.removeprefix("<image>\n"), lambda piece: None)
        assert said is not None and [*said.ids] == line["ids"]
