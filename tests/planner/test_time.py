"""Operations and hours: by hand on small numbers, against published times, and from what earlier
runs measured.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from densekit.data.sample_totals import Counting, SampleTotals, keep_totals
from densekit.files.json_files import write_json
from densekit.planner.calibrate import measured_efficiency
from densekit.planner.candidates import SearchSpace
from densekit.planner.cluster import Cluster, usual_nodes
from densekit.planner.lengths import (
    CAPTIONS,
    CONVERSATIONS,
    COUNTED,
    average_sample,
    counted,
    lengths_of,
)
from densekit.planner.measured import MARGIN
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.planner.time import (
    HOST_BANDWIDTH,
    HOST_BYTES,
    LINK_SHARE,
    StepTime,
    communication_seconds,
    step_time,
)
from densekit.planner.workload import Workload
from densekit.recipes.load import load_recipe
from densekit.runs.environment import Environment
from densekit.runs.manifest import Certified, DataFiles, Manifest
from densekit.runs.records import StepRecord
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.flops import FLASH_BACKWARD, AverageSample, flops_of
from densekit.spec.hardware import BY_NAME, hardware
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots
from densekit.spec.trained_model import TrainedModel
from tests.support.runs import ENVIRONMENT

FULL = Workload.of(load_recipe("vicuna7b_clip_stage2"), None)
SHAPE = FULL.model.shape
SAMPLE = AverageSample(tokens=100, squares=10_000, images=0.5, label_positions=10)
A100 = BY_NAME["a100-80g"]


def plan_on(
    name: str, gpu: str, gpus: int, *, micro_batch_size: int | None = None, **options: Any
) -> Plan:
    row = hardware(gpu)
    request = ExecutionRequest(
        device="cuda",
        world_size=gpus,
        nodes=usual_nodes(row, gpus),
        micro_batch_size=micro_batch_size,
    )
    return make_plan(load_recipe(name), request, hardware=row, **options)


def test_operations_by_hand() -> None:
    flops = flops_of(FULL.model, SAMPLE, 2, activation_checkpointing=False).parts
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert flops["layers"] == 200 * 6 * layers
    assert flops["attention"] == 2 * 10_000 * 2 * 32 * 4096 * (1 + FLASH_BACKWARD)
    assert flops["lm_head"] == 20 * 6 * 32000 * 4096
    assert flops["projector"] == 576 * (4 * 3072 * 4096 + 6 * 4096**2) and flops["adapters"] == 0
    blocks = 23 * (4 * 1024 * 1025 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024)
    assert flops["tower"] == 2 * 577 * blocks + 23 * 4 * 577**2 * 1024


def test_frozen_and_recomputed_parts_change_the_operations() -> None:
    def parts(trains: Any, checkpointing: bool) -> dict[str, float]:
        model = TrainedModel(shape=SHAPE, trains=trains, lora_r=8)
        return flops_of(model, SAMPLE, 1, activation_checkpointing=checkpointing).parts

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
        == 100 * 6 * SHAPE.language.lora_parameters(8)
        > frozen["adapters"]
        == 0
    )
    assert parts("lora", False)["layers"] == frozen["layers"]


def test_average_samples_by_hand() -> None:
    stage1, stage2 = load_recipe("vicuna7b_clip_stage1"), load_recipe("vicuna7b_clip_stage2")
    caption = average_sample(stage1, lengths_of(stage1, None), 576)
    assert caption == AverageSample(tokens=601, squares=601**2, images=1, label_positions=25)
    text = 40688 / 665298
    conversation = average_sample(stage2, lengths_of(stage2, None), 576)
    assert conversation.tokens == pytest.approx((1 - text) * 776 + text * 900)
    assert conversation.images == 1 - text
    # The figures of the published comparison: 335 and 521 million tokens.
    assert 558128 * caption.tokens == pytest.approx(335e6, rel=0.01)
    assert 665298 * conversation.tokens == pytest.approx(521e6, rel=0.01)
    short = average_sample(
        load_recipe("vicuna7b_clip_stage2", ["data.max_length=600"]), CONVERSATIONS, 576
    )
    assert short.tokens == 600


def test_lengths_counted_in_the_annotation_file(tmp_path: Path) -> None:
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


def execution(**changes: Any) -> Execution:
    return Execution(
        **{
            "device": "cuda",
            "world_size": 8,
            "zero_stage": 3,
            "activation_checkpointing": True,
            "dtype": "bf16",
            "attention": "flash",
            **changes,
        }
    )


def on_a100(world_size: int = 8, nodes: int = 1) -> Cluster:
    return Cluster(hardware=A100, world_size=world_size, nodes=nodes)


def test_communication_by_hand() -> None:
    """Two micro-batches per step."""
    weights, trained = SHAPE.language.parameters, FULL.model.trained

    def seconds(cluster: Cluster, **changes: Any) -> float:
        return communication_seconds(FULL.model, execution(**changes), cluster, micro_batches=2)

    per_second = A100.link * LINK_SHARE / (7 / 8)
    for stage, moved in (
        (3, 2 * (4 * weights + 4 * trained)),
        (2, 2 * trained + 2 * 4 * trained),
        (0, 8 * trained),
    ):
        assert seconds(on_a100(), zero_stage=stage) == pytest.approx(moved / per_second)
    assert seconds(on_a100(world_size=1)) == 0
    ratio = seconds(on_a100(nodes=8)) / seconds(on_a100())
    assert ratio == pytest.approx(A100.link / A100.network), "eight nodes of one GPU"


def test_step_time_by_hand() -> None:
    flops = flops_of(FULL.model, FULL.sample, 128, activation_checkpointing=True)
    trained = FULL.model.trained

    def step(
        cluster: Cluster, measured: tuple[float, float] | None = None, **changes: Any
    ) -> StepTime:
        return step_time(
            FULL.model,
            execution(**changes),
            cluster,
            flops,
            micro_batches=1,
            tokens=1e12,
            measured=measured,
        )

    alone = step(on_a100(world_size=1), world_size=1, zero_stage=0)
    assert alone.peak == flops.total / 312e12
    assert alone.seconds.low == pytest.approx(alone.peak / 0.6)
    assert alone.seconds.high == pytest.approx(alone.peak / 0.2)
    shared = step(on_a100())
    assert shared.peak == pytest.approx(alone.peak / 8)
    assert shared.communication > 0
    assert shared.seconds.high == pytest.approx(shared.peak / 0.2 + shared.communication)
    offloaded = step(on_a100(), cpu_offload=True)
    least, most = (trained * each / HOST_BANDWIDTH for each in HOST_BYTES)
    assert offloaded.seconds.low - shared.seconds.low > least
    assert offloaded.seconds.high > offloaded.seconds.low + most - least
    measured = step(on_a100(), measured=(0.4, 0.5))
    assert measured.communication == 0
    assert measured.seconds.low == pytest.approx(measured.peak / 0.5)


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
    # Who published them cut micro-batches by the number of samples.
    for samples in (16, 8, 4, 2, 1):
        plan = plan_on(name, gpu, gpus, micro_batch_size=samples)
        if plan.fits:
            break
    assert plan.hours is not None and plan.hours.low <= hours <= plan.hours.high
    assert plan.hours.high <= 6 * plan.hours.low, "an interval that says something"


def test_more_gpus_take_less_time() -> None:
    counts = (1, 2, 4, 8, 16)
    hours = [plan_on("vicuna7b_clip_stage2", "a100-80g", gpus).hours for gpus in counts]
    lows = [interval.low for interval in hours if interval]
    assert len(lows) == 5 and lows == sorted(lows, reverse=True)


def run_of(
    folder: Path,
    name: str,
    seconds: float,
    *,
    device: str = "NVIDIA A100-SXM4-80GB",
    state: Literal["running", "complete"] = "complete",
    **execution: Any,
) -> None:
    """A run directory as far as calibration reads it: 20 steps of `seconds`, after ten that took
    much longer.
    """
    recipe = load_recipe(name)
    folder.mkdir(parents=True)
    zero = "0" * 64
    manifest = Manifest(
        state=state,
        run=zero,
        recipe=name,
        starts_from=None,
        environment=Environment.model_validate(
            {**ENVIRONMENT, "devices": [{"name": device, "driver": "550"}]}
        ),
        execution={
            "device": "cuda",
            "gpus": 8,
            "dtype": "bf16",
            "checkpointing": True,
            "roots": {},
            **execution,
        },
        attempts=1,
        certificate=Certified(sha256=zero, steps=30, samples_dropped=0, samples_repeated=0),
        data=DataFiles(annotations_sha256=zero),
        models={},
    )
    write_json(folder / "manifest.json", manifest.as_json())
    write_json(folder / "math.json", RunMath(recipe=recipe.math(), starts_from=None).as_json())
    record = StepRecord(
        step=1,
        loss=1.0,
        lr=0.0,
        grad_norm=1.0,
        updated=True,
        overflows=0,
        samples=128,
        tokens=100_000,
        supervised_tokens=17_000,
        masked_samples=0,
        ids=zero,
        images=zero,
        chain=zero,
    )
    lines = [
        json.dumps({**asdict(record), "step": step, "seconds": 500.0 if step <= 10 else seconds})
        for step in range(1, 31)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    request = ExecutionRequest(micro_batch_size=4, zero_stage=3, activation_checkpointing=True)
    space = SearchSpace(workload=FULL, request=request, measured=measured)
    (same,) = space.candidates(on_a100())
    # 100,000 tokens of 128 samples with an image each are what the recipe expects within some
    # percent.
    assert same.expected.seconds.low == pytest.approx(5 / (1 + MARGIN), rel=0.05)
    assert same.expected.seconds.high == pytest.approx(6 / (1 - MARGIN), rel=0.05)
    plan = plan_on("vicuna7b_clip_stage2", "a100-80g", 8, measured=measured)
    assert any("as earlier runs measured" in note for note in plan.notes)
    without = plan_on("vicuna7b_clip_stage2", "a100-80g", 8)
    assert plan.execution == without.execution, "as `run` plans"
    assert plan.hours != without.hours
    assert measured_efficiency(tmp_path / "nowhere") == {}


def test_hours_are_those_of_counted_tokens(tmp_path: Path) -> None:
    recipe = load_recipe("vicuna7b_clip_stage2")
    roots = Roots(data=tmp_path / "data", models=tmp_path / "models", cache=tmp_path / "cache")
    folder = roots.resolve(recipe.models.tokenizer_folder)
    annotations = roots.resolve(recipe.data.annotations)
    for path in (folder / "tokenizer.model", annotations):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]", encoding="utf-8")
    assert Workload.of(recipe, roots).sample == FULL.sample
    counting = Counting(
        annotations=annotations,
        tokenizer=folder,
        template="v1",
        semantics="faithful",
        max_length=2048,
        image_tokens=576,
    )
    totals = SampleTotals(
        samples=4,
        images=3,
        tokens=4000,
        squares=5_000_000,
        longest=2000,
        label_positions=900,
        notes={},
    )
    keep_totals(counting, roots.cache, totals)
    found = Workload.of(recipe, roots)
    assert found.sample == AverageSample(
        tokens=1000, squares=1_250_000, images=0.75, label_positions=225
    )
    assert found.lengths == COUNTED
    tiny = Workload.of(load_recipe("vicuna7b_clip_stage2", ["data.max_length=1024"]), roots)
    assert tiny.lengths != COUNTED, "cut elsewhere, samples have other lengths"
