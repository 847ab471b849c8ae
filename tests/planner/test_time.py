"""Operations and hours: by hand on small numbers, against published times, and from what earlier
runs measured.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densekit.planner.calibrate import MARGIN, measured_efficiency
from densekit.planner.estimate import job_of
from densekit.planner.flops import FLASH_BACKWARD, flops_of
from densekit.planner.lengths import (
    CAPTIONS,
    CONVERSATIONS,
    Sample,
    average_sample,
    counted,
    lengths_of,
)
from densekit.planner.memory import Layout
from densekit.planner.plan import make_plan
from densekit.planner.search import NOTHING, Fixed, Job, Place, usual_nodes
from densekit.planner.time import HOST_BANDWIDTH, HOST_BYTES, LINK_SHARE, step_time, talk_seconds
from densekit.recipes.load import load_recipe
from densekit.spec.hardware import BY_NAME, hardware


def job(name: str) -> Job:
    return job_of(load_recipe(name), None, NOTHING, None)


FULL = job("vicuna7b_clip_stage2")
SAMPLE = Sample(tokens=100, squares=10_000, images=0.5, supervised=10)


def test_operations_by_hand() -> None:
    language = FULL.shape.language
    flops = flops_of(FULL.shape, SAMPLE, 2, trains="full", lora_r=0, checkpointing=False).parts
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert flops["layers"] == 200 * 6 * layers
    assert flops["attention"] == 2 * 10_000 * 2 * 32 * 4096 * (1 + FLASH_BACKWARD)
    assert flops["lm_head"] == 20 * 6 * 32000 * 4096
    assert flops["projector"] == 576 * (4 * 3072 * 4096 + 6 * 4096**2) and flops["adapters"] == 0
    blocks = 23 * (4 * 1024 * 1025 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024)
    assert flops["tower"] == 2 * 577 * blocks + 23 * 4 * 577**2 * 1024
    assert language.layers == 32


def test_what_is_frozen_or_computed_again_changes_the_operations() -> None:
    def parts(trains: Any, checkpointing: bool) -> dict[str, float]:
        return flops_of(
            FULL.shape, SAMPLE, 1, trains=trains, lora_r=8, checkpointing=checkpointing
        ).parts

    full, frozen, again = parts("full", False), parts("connector", False), parts("full", True)
    assert frozen["layers"] / full["layers"] == pytest.approx(4 / 6), (
        "no gradients of frozen weights"
    )
    assert again["layers"] / full["layers"] == pytest.approx(8 / 6)
    assert frozen["attention"] == full["attention"] < again["attention"]
    assert frozen["lm_head"] / full["lm_head"] == pytest.approx(2 / 3)
    assert (
        frozen["tower"] == full["tower"] == again["tower"]
        and frozen["projector"] == full["projector"]
    )
    assert (
        parts("lora", False)["adapters"]
        == 100 * 6 * FULL.shape.language.lora_parameters(8)
        > frozen["adapters"]
        == 0
    )
    assert parts("lora", False)["layers"] == frozen["layers"]


def test_an_average_sample() -> None:
    stage1, stage2 = load_recipe("vicuna7b_clip_stage1"), load_recipe("vicuna7b_clip_stage2")
    caption = average_sample(stage1, lengths_of(stage1, None), 576)
    assert caption == Sample(tokens=601, squares=601**2, images=1, supervised=25)
    text = 40688 / 665298
    talk = average_sample(stage2, lengths_of(stage2, None), 576)
    assert talk.tokens == pytest.approx((1 - text) * 776 + text * 900) and talk.images == 1 - text
    # The figures of the published comparison: 335 and 521 million tokens.
    assert 558128 * caption.tokens == pytest.approx(335e6, rel=0.01)
    assert 665298 * talk.tokens == pytest.approx(521e6, rel=0.01)
    short = average_sample(
        load_recipe("vicuna7b_clip_stage2", ["data.max_length=600"]), CONVERSATIONS, 576
    )
    assert short.tokens == 600


def test_lengths_that_were_counted(tmp_path: Path) -> None:
    values = counted(np.array([10, 20, -100]), "v1")
    assert (values["with_image"], values["text_only"]) == (1.4 * 15 + 40, 1.4 * 100 + 40)
    assert (
        values["text_only_share"] == pytest.approx(1 / 3)
        and counted(np.array([10]), "plain")["with_image"] == 14
    )
    recipe, kept = load_recipe("vicuna7b_clip_stage2"), tmp_path / "kept.json"
    kept.write_text(json.dumps(values), encoding="utf-8")
    assert lengths_of(recipe, kept).source.startswith("words counted in the annotation file")
    for damaged in ("{", "{}", "[1]", json.dumps({**values, "with_image": "x"})):
        kept.write_text(damaged, encoding="utf-8")
        assert lengths_of(recipe, kept) == CONVERSATIONS
    assert lengths_of(load_recipe("vicuna7b_clip_stage1"), tmp_path / "none") == CAPTIONS


def layout(**changes: Any) -> Layout:
    values: dict[str, Any] = {
        "world": 8,
        "zero_stage": 3,
        "checkpointing": True,
        "offload": False,
        "dtype": "bf16",
        "attention": "flash",
        "trains": "full",
    }
    return Layout(**{**values, **changes})


def test_talking_by_hand() -> None:
    weights, row = FULL.shape.language.parameters, BY_NAME["a100-80g"]
    shares = {"shape": FULL.shape, "hardware": row, "trained": 1000, "nodes": 1}
    per_second = row.link * LINK_SHARE / (7 / 8)
    for stage, moved in ((3, 2 * (4 * weights + 4000)), (2, 2000 + 2 * 4000), (0, 8000)):
        seconds = talk_seconds(layout=layout(zero_stage=stage), micro_batches=2, **shares)  # type: ignore[arg-type]
        assert seconds == pytest.approx(moved / per_second)
    assert talk_seconds(layout=layout(world=1), micro_batches=2, **shares) == 0  # type: ignore[arg-type]
    apart = talk_seconds(layout=layout(), micro_batches=2, **{**shares, "nodes": 8})  # type: ignore[arg-type]
    near = talk_seconds(layout=layout(), micro_batches=2, **shares)  # type: ignore[arg-type]
    assert apart / near == pytest.approx(row.link / row.network), "eight nodes of one GPU"


def test_a_step_by_hand() -> None:
    row, flops = BY_NAME["a100-80g"], FULL.flops(True)

    def step(measured: tuple[float, float] | None = None, **changes: Any) -> Any:
        return step_time(
            FULL.shape,
            layout(**changes),
            row,
            flops,
            trained=FULL.trained,
            micro_batches=1,
            row_tokens=1e12,
            nodes=1,
            measured=measured,
        )

    alone = step(world=1, zero_stage=0)
    assert alone.peak == flops.total / 312e12
    assert (alone.seconds.low, alone.seconds.high) == pytest.approx(
        (alone.peak / 0.6, alone.peak / 0.2)
    )
    shared = step()
    assert shared.peak == pytest.approx(alone.peak / 8)
    assert (
        shared.seconds.high == pytest.approx(shared.peak / 0.2 + shared.talking)
        and shared.talking > 0
    )
    hosted = step(offload=True)
    assert hosted.seconds.low - shared.seconds.low > FULL.trained * HOST_BYTES[0] / HOST_BANDWIDTH
    assert (
        hosted.seconds.high
        > hosted.seconds.low + FULL.trained * (HOST_BYTES[1] - HOST_BYTES[0]) / HOST_BANDWIDTH
    )
    known = step(measured=(0.4, 0.5))
    assert known.talking == 0 and known.seconds.low == pytest.approx(known.peak / 0.5)


# LLaVA's README and issues, TinyLLaVA_Factory issue 67, the paper's section 4.2.
PUBLISHED = [
    ("vicuna7b_clip_stage2", "a100-40g", 8, 9),
    ("vicuna7b_clip_none_stage1", "a100-80g", 8, 3.5),
    ("vicuna13b_clip_none_stage1", "a100-80g", 8, 5.5),
    ("vicuna7b_clip_none_stage2", "a100-40g", 8, 10),
    ("vicuna13b_clip_none_stage2", "a100-80g", 8, 20),
    ("vicuna7b_clip_stage1_v100", "v100-32g", 8, 20),
    ("phi2_stage1", "a100-40g", 4, 5),
    ("phi2_stage2", "a100-40g", 4, 14),
]


@pytest.mark.parametrize(("name", "gpu", "gpus", "hours"), PUBLISHED)
def test_published_hours_lie_in_the_interval(name: str, gpu: str, gpus: int, hours: float) -> None:
    plan = make_plan(load_recipe(name), gpus=gpus, device="cuda", hardware=hardware(gpu))
    assert plan.hours is not None and plan.hours["low"] <= hours <= plan.hours["high"]
    assert plan.hours["high"] <= 6 * plan.hours["low"], "an interval that says something"


def test_more_gpus_take_less_time() -> None:
    recipe, row = load_recipe("vicuna7b_clip_stage2"), hardware("a100-80g")
    hours = [
        make_plan(
            recipe, gpus=gpus, nodes=usual_nodes(row, gpus), device="cuda", hardware=row
        ).hours
        for gpus in (1, 2, 4, 8, 16)
    ]
    lows = [one["low"] for one in hours if one]
    assert len(lows) == 5 and lows == sorted(lows, reverse=True)


def run_of(
    folder: Path,
    name: str,
    seconds: float,
    *,
    device: str = "NVIDIA A100-SXM4-80GB",
    state: str = "complete",
    **execution: Any,
) -> None:
    """A run directory as far as calibration reads it: 20 steps of `seconds`, after ten that took
    much longer.
    """
    recipe = load_recipe(name)
    folder.mkdir(parents=True)
    values = {
        "device": "cuda",
        "gpus": 8,
        "dtype": "bf16",
        "checkpointing": True,
        "roots": {},
        **execution,
    }
    manifest = {
        "state": state,
        "environment": {"devices": [{"name": device, "driver": "550"}]},
        "execution": values,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    math = {"schema": 2, "recipe": recipe.math(), "starts_from": None}
    (folder / "math.json").write_text(json.dumps(math), encoding="utf-8")
    step = {"samples": 128, "tokens": 100_000, "supervised_tokens": 17_000}
    lines = [{**step, "seconds": 500.0}] * 10 + [{**step, "seconds": seconds}] * 20
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )


def test_earlier_runs_replace_the_published_interval(tmp_path: Path) -> None:
    run_of(tmp_path / "a", "vicuna7b_clip_stage2", 5.0)
    run_of(tmp_path / "b", "vicuna7b_clip_stage2", 6.0)
    run_of(tmp_path / "cpu", "vicuna7b_clip_stage2", 1.0, device="x")
    run_of(tmp_path / "offloaded", "vicuna7b_clip_stage2", 60.0, offload=True)
    run_of(tmp_path / "running", "vicuna7b_clip_stage2", 60.0, state="running")
    run_of(tmp_path / "tiny", "tiny_stage2", 60.0)
    run_of(tmp_path / "damaged", "vicuna7b_clip_stage2", 5.0)
    (tmp_path / "damaged" / "metrics.jsonl").write_text("{", encoding="utf-8")
    measured = measured_efficiency(tmp_path)
    assert measured.keys() == {"a100-80g"}
    low, high = measured["a100-80g"]
    assert high / low == pytest.approx(6 / 5 * (1 + MARGIN) / (1 - MARGIN))
    place = Place(hardware=hardware("a100-80g"), gpus=8, nodes=1)
    told = replace(
        FULL, fixed=Fixed(micro_batch_size=4, zero_stage=3, checkpointing=True), measured=measured
    )
    (same,) = told.candidates(place)
    # 100,000 tokens of 128 samples with an image each are what the recipe expects within some
    # percent.
    assert same.expected.seconds.low == pytest.approx(5 / (1 + MARGIN), rel=0.05)
    assert same.expected.seconds.high == pytest.approx(6 / (1 - MARGIN), rel=0.05)
    plan = make_plan(
        load_recipe("vicuna7b_clip_stage2"),
        gpus=8,
        device="cuda",
        hardware=place.hardware,
        measured=measured,
    )
    assert any("as earlier runs measured" in note for note in plan.notes)
    without = make_plan(
        load_recipe("vicuna7b_clip_stage2"), gpus=8, device="cuda", hardware=place.hardware
    )
    assert (plan.micro_batches, plan.zero_stage) == (without.micro_batches, without.zero_stage), (
        "as `run` plans"
    )
    assert plan.hours != without.hours
    assert measured_efficiency(tmp_path / "nowhere") == {}
