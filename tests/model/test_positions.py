"""Positions: from 0 in each sequence, and rounded to bf16 where a recipe says so (ledger U12)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from densekit.model.architectures import ARCHITECTURES
from densekit.model.inspection import inspect
from densekit.model.trainable_part import as_trained
from densekit.recipes.load import load_recipe
from densekit.spec.connector import Connector
from densekit.spec.math import Math, RunMath
from densekit.spec.model_parts import ModelParts
from densekit.spec.types import Positions
from densekit.spec.vision import ImageLayout
from densekit.text.sequence import ModelSequence
from densekit.train.collate import WeightedSample, pack
from tests.support.files import write_json
from tests.support.models import NO_IMAGE, micro_batch, small_model

LAYOUT = ImageLayout(patches=4, connector=Connector(kind="none"))
LENGTHS = (7, 1, 12)


def samples(lengths: tuple[int, ...]) -> list[WeightedSample]:
    generator = np.random.default_rng(0)
    drawn = [generator.integers(3, 97, length) for length in lengths]
    return [
        WeightedSample(
            sequence=ModelSequence(input_ids=ids, labels=ids),
            image=None,
            weight=1.0,
            position=number,
            sample_id=str(number),
        )
        for number, ids in enumerate(drawn)
    ]


def test_positions_start_again_in_each_sequence() -> None:
    packed = pack(samples(LENGTHS), layout=LAYOUT, image_size=28)
    expected = [place for length in LENGTHS for place in range(length)]
    assert packed.position_ids.tolist() == expected


def test_a_model_with_learned_positions_sees_them_from_0_in_each_sequence() -> None:
    """Rotary attention only knows distances: it hides positions that run on."""
    model = small_model().eval()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=16, initializer_range=0.2
    )
    model.replace_language_model(GPT2LMHeadModel(config).eval())
    batch = pack(samples(LENGTHS), layout=LAYOUT, image_size=28)
    with torch.no_grad():
        packed = model(batch, NO_IMAGE).logits
        with model.stock_attention("eager"):
            alone = [
                model.language_model(input_ids=ids[None]).logits[0, :-1]
                for ids in batch.input_ids.split(LENGTHS)
            ]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=0)


def rotations(positions: Positions) -> Tensor:
    """cos and sin [2048, D] that the attention layers of a tiny model get."""
    model = small_model().eval()
    model.trainable_part.positions = positions
    seen: list[Tensor] = []
    model.language_model.model.rotary_emb.register_forward_hook(
        lambda _module, _inputs, output: seen.append(torch.cat(output, dim=-1)[0])
    )
    with torch.no_grad():
        model(micro_batch([2048], label_positions=torch.tensor([5])), NO_IMAGE)
    return seen[0]


@pytest.mark.parametrize(("positions", "distinct"), [("exact", 2048), ("bf16", 641)])
def test_bf16_positions_share_rotations(positions: Positions, distinct: int) -> None:
    assert len(torch.unique(rotations(positions), dim=0)) == distinct


def test_rounding_is_to_eight_bits() -> None:
    rounded = as_trained(torch.tensor([0, 255, 256, 257, 259, 513, 1027, 2047]), "bf16")
    assert rounded.tolist() == [0, 255, 256, 256, 260, 512, 1024, 2048]
    assert rounded.dtype == torch.int64


def test_exact_positions_leave_no_trace_in_a_run_s_identity() -> None:
    math = load_recipe("vicuna7b_stage2").math()
    assert math.positions == "exact" and "positions" not in math.as_json()
    coarse = load_recipe("vicuna7b_stage2", ["positions=bf16"]).math()
    assert coarse.as_json() == {**math.as_json(), "positions": "bf16"}
    assert Math.model_validate(coarse.as_json()) == coarse
    assert Math.model_validate(math.as_json()) == math
    hashes = {RunMath(recipe=recipe, starts_from=None).sha256 for recipe in (math, coarse)}
    assert len(hashes) == 2


def test_bf16_positions_are_refused_where_there_is_no_rotary_table(
    golden: Path, tmp_path: Path
) -> None:
    (gpt2,) = [entry for entry in ARCHITECTURES if entry.model_type == "gpt2"]
    write_json(tmp_path / "config.json", {"model_type": "gpt2", **gpt2.config})
    models: dict[str, Any] = {
        "language_model": tmp_path,
        "vision_tower": golden / "models" / "clip_tiny",
        "connector": {"kind": "none"},
        "connector_weights": None,
        "max_length": 64,
    }
    assert inspect(ModelParts(**models)) == []
    (problem,) = inspect(ModelParts(**models, positions="bf16"))
    assert "type gpt2 has none: omit `positions`" in problem
