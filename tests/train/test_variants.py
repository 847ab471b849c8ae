"""Variants on every engine: a connector with modules of its own, and a tower that is trained, give
the same step on any ranks and micro-batches, and resume to the last bit.
"""

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densekit.errors import DataError, UsageError
from densekit.exchange.export.llava_hf import write_llava_hf
from densekit.exchange.export.official import write_official
from densekit.exchange.export.own import write_own
from densekit.exchange.loading import load_model
from densekit.exchange.own_folder import load_own
from densekit.model.init import initial_newline, initial_projector
from densekit.model.projector import Projector
from densekit.model.weights import read_weights, save_weights
from densekit.parity.case import Recording
from densekit.recipes.load import load_recipe
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Data, Lora, Math
from densekit.spec.mining import Mining
from densekit.spec.roots import Roots
from densekit.train.initial_state import load_base
from densekit.train.lora import initial_lora
from tests.support.ranks import run_ranks
from tests.support.second_tower import conv_weights, drawn_mining, open_clip
from tests.support.training import Kill, assert_equal, start_run
from tests.support.workplace import Workplace
from tests.support.worlds import FEW, GROUPS, gradients

pytestmark = pytest.mark.ranks

CONVOLUTION = Connector(
    kind="sci_conv2d",
    layers=(7, 15),
    learned={"shared": True, "high_level": True, "bias": True},
    reduce_tokens="after_projector",
)
LINEAR = Connector(
    kind="dci_linear",
    groups=((0, 1, 2), (3, 4, 23)),
    learned={"shared": False, "high_level": True, "bias": True},
)
TOKENS = Connector(
    kind="sti_conv1d",
    layers=(7, 15),
    learned={"shared": True, "high_level": False, "bias": True},
)
TOWER_RATE = 1e-4


LEARNED = {"convolution": CONVOLUTION, "linear": LINEAR, "tokens": TOKENS}


def variant(golden: Path, name: str) -> dict[str, Any]:
    """Math and initial weights of the recorded stage 2, varied in one way or in several."""
    recorded: Math = Recording.read(golden, golden / "clip_dci" / "stage2.json").math
    math = recorded
    for part in name.split(", "):
        math = math.model_copy(update=changes(math, part))
    if math.connector.mining is not None:
        init = drawn_mining(math.connector, 32, 64)
    elif math.connector != recorded.connector:
        with torch.device("meta"):
            projector = Projector(math.connector, 32, 64)
        drawn = initial_projector(projector, seed=3)
        init = {f"connector.{key}": value for key, value in drawn.items()}
    else:
        start = read_weights(golden / "clip_dci" / "projector_after_stage1.safetensors")
        init = {f"connector.{key}": value for key, value in start.items()}
    if math.data.anyres is not None:
        init["image_newline.weight"] = initial_newline(64, seed=3, stage=2)
    return {"math": math, "init": init | (adapters(math) if math.lora else {})}


def changes(math: Math, part: str) -> dict[str, Any]:
    """What one way to vary it changes."""
    if part == "tower":
        rate = {"tower_learning_rate": TOWER_RATE}
        return {"optimizer": math.optimizer.model_copy(update=rate)}
    if part == "tiles":
        anyres = AnyRes(pinpoints=((56, 112), (112, 56), (112, 112)), merge="spatial_unpad")
        tiles = {"image_aspect_ratio": "anyres", "anyres": anyres, "max_length": 256}
        return {"data": data_of(math, tiles)}
    if part == "LoRA":
        return {"lora": Lora(r=4, alpha=8)}
    return second_tower(math) if part == "mining" else {"connector": LEARNED[part]}


def adapters(math: Math) -> dict[str, Tensor]:
    """Initial adapters that have begun to learn: where B is 0, A has no gradient."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for name, value in initial_lora(load_base(math, Roots()), 7).items():
        noise = torch.randn(value.shape, generator=generator) / 10
        found[f"lora.{name}"] = value + noise if ".lora_B." in name else value
    return found


def second_tower(math: Math) -> dict[str, Any]:
    """One of 128 pixels, without stochastic depth."""
    folder = Path(tempfile.mkdtemp(prefix="densekit-tower-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    models = {"high_resolution_tower": str(open_clip(folder / "convnext"))}
    mining = Mining(image_size=128, window=8, drop_path=0)
    return {
        "connector": math.connector.model_copy(update={"mining": mining}),
        "models": math.models.model_copy(update=models),
    }


def data_of(math: Math, changes: dict[str, Any]) -> Data:
    """The recorded data, read in another way."""
    return Data.model_validate(math.data.model_dump() | changes)


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient[name].flatten() for name in sorted(gradient)])


SPLITS = [
    ("tower", 2, 3, True),
    ("convolution", 2, 3, False),
    *(
        pytest.param(name, world_size, zero_stage, True, marks=pytest.mark.slow)
        for name in ("tower", "tiles", "tiles, LoRA", "mining", "convolution", "linear", "tokens")
        for world_size, zero_stage in ((2, 3), (3, 0), (3, 2))
    ),
    *(
        pytest.param(name, 3, 2, True, marks=pytest.mark.slow)
        for name in ("tower, tiles", "linear, tower", "convolution, tiles, LoRA", "mining, LoRA")
    ),
]


@pytest.mark.parametrize(("name", "world_size", "zero_stage", "checkpointing"), SPLITS)
def test_any_split_gives_the_same_step(
    golden: Path, name: str, world_size: int, zero_stage: int, checkpointing: bool
) -> None:
    """Micro-batches of text alone and idle ranks among them."""
    options = variant(golden, name)
    whole = run_ranks(1, gradients, golden, [(12, GROUPS), (12, FEW)], Execution(), **options)
    execution = Execution(zero_stage=zero_stage, activation_checkpointing=checkpointing)
    configurations = [(1, GROUPS), (2, FEW)]
    split = run_ranks(world_size, gradients, golden, configurations, execution, **options)
    for expected, found in zip(whole[0].returned, split[0].returned, strict=True):
        assert found[2] == expected[2] and found[0] == pytest.approx(expected[0], abs=1e-5)
        assert found[1].keys() == expected[1].keys()
        difference = (flat(found[1]) - flat(expected[1])).norm() / flat(expected[1]).norm()
        assert difference <= 1e-6, difference
    parts = ("vision_tower.", "projector.connector.", "projector.mining.", "image_newline.")
    own = [key for key in expected[1] if key.startswith(parts) or ".lora_" in key]
    # A key's bias has a true gradient of 0.
    idle = [key for key in own if not expected[1][key].any() and "k_proj.bias" not in key]
    assert own and not idle


@pytest.mark.parametrize("zero_stage", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_trained_tower_resumes_to_the_last_bit_and_is_read_back(
    workplace: Workplace, tmp_path: Path, zero_stage: int
) -> None:
    rate = "optimizer.tower_learning_rate=1e-3"
    whole = start_run(workplace, tmp_path / "whole", rate, zero_stage=zero_stage)
    whole.finish()
    killed = start_run(workplace, tmp_path / "killed", rate, zero_stage=zero_stage)
    assert killed.attempt(Kill(0, 8))[0].exit_code == -9
    killed.finish()
    assert_equal(killed, whole)
    base = read_weights(
        killed.execution.roots.resolve("cache:tiny/vision_tower") / "model.safetensors"
    )
    model, _ = load_model(killed.run.path)
    trained = dict(model.vision_tower.model.state_dict())
    assert trained
    for name, value in trained.items():
        (before,) = (v for key, v in base.items() if key.endswith(name))
        moved = (value - before).abs().max()
        assert "position_ids" in name or 0 < moved < 0.1, name


@pytest.mark.parametrize("zero_stage", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_mining_resumes_to_the_last_bit_and_is_read_back(
    workplace: Workplace, tmp_path: Path, zero_stage: int
) -> None:
    """With stochastic depth in the second tower."""
    tower = open_clip(tmp_path / "convnext")
    recipe = load_recipe("tiny_stage2")
    mining = {"image_size": 112, "window": 4, "drop_path": 0.5}
    spec = recipe.connector.model_copy(update={"mining": Mining.model_validate(mining)})
    drawn = drawn_mining(spec, 96, 128)
    start = tmp_path / "start.safetensors"
    save_weights({key.removeprefix("connector."): value for key, value in drawn.items()}, start)
    overrides = (
        f"models.high_resolution_tower={tower}",
        f"models.connector={start}",
        f"connector.mining={json.dumps(mining)}",
    )
    whole = start_run(workplace, tmp_path / "whole", *overrides, zero_stage=zero_stage)
    whole.finish()
    killed = start_run(workplace, tmp_path / "killed", *overrides, zero_stage=zero_stage)
    assert killed.attempt(Kill(0, 8))[0].exit_code == -9
    killed.finish()
    assert_equal(killed, whole)
    after = read_weights(killed.run.path / "connector.safetensors")
    moved = {
        key for key, value in after.items() if not torch.equal(value, drawn[f"connector.{key}"])
    }
    assert moved == after.keys() and "mining.val.1.weight" in moved
    model, source = load_model(killed.run.path)
    assert model.high_resolution_tower is not None and not model.high_resolution_tower.training
    stored = model.high_resolution_tower.model.embeddings.patch_embeddings.weight
    assert torch.equal(stored, conv_weights()["stem.0.weight"])
    said = generate(model)
    assert said.shape == (1, 4)
    exported = tmp_path / "exported"
    exported.mkdir()
    write_own(source, exported, dtype=None)
    assert torch.equal(generate(load_own(exported, dtype=torch.float32)), said)
    with pytest.raises(DataError, match="the official one does not"):
        write_official(source, tmp_path, merge=False, dtype=None)
    with pytest.raises(DataError, match="its Llava has no second tower"):
        write_llava_hf(source, tmp_path, dtype=None)


def generate(model: Any) -> Tensor:
    """Four new tokens about one picture at the second tower's size."""
    ids = [torch.tensor([1, model.config.image_token_id, 5])]
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    found: Tensor = model.generate(ids, pixels, max_new_tokens=4, min_new_tokens=4)
    return found


@pytest.mark.parametrize(
    "overrides", [["stage=1", "needs=null"], ["lora={r: 4, alpha: 8}"]], ids=["stage 1", "LoRA"]
)
def test_a_tower_is_trained_with_the_whole_language_model_alone(overrides: list[str]) -> None:
    rate = "optimizer.tower_learning_rate=1e-6"
    with pytest.raises(UsageError, match="the tower is trained with the whole language model"):
        load_recipe("tiny_stage2", [rate, *overrides])
