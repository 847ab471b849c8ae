"""The memory model: invariants on random sizes, and traced steps of the tiny model beside it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.planner import memory as memory_module
from densekit.planner.memory import PARTS, memory_of, traced_execution
from densekit.planner.memory_trace.autograd import Meter, Tape
from densekit.planner.memory_trace.model import KEPT, LANGUAGE, TracedStep
from densekit.planner.memory_trace.peaks import peaks
from densekit.planner.workload import MicroBatchShape
from densekit.spec import deepspeed
from densekit.spec.anyres import AnyRes
from densekit.spec.architectures import LANGUAGE_MODELS, TOWERS, ModelShape, connector_shape
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.mining import ConvTower, Mining
from densekit.spec.trained_model import TrainedModel
from densekit.train.engines.process_group import deepspeed_config

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CONNECTOR = Connector(kind="dci", groups=((*range(12),), (*range(12, 24),)))


def model_of(name: str = "lmsys/vicuna-7b-v1.5", **trains: Any) -> TrainedModel:
    tower = TOWERS["openai/clip-vit-large-patch14-336"]
    connector = connector_shape(CONNECTOR, tower)
    shape = ModelShape(language=LANGUAGE_MODELS[name], tower=tower, connector=connector)
    return TrainedModel(shape=shape, **{"trains": "full", **trains})


def with_layers(model: TrainedModel, layers: int) -> TrainedModel:
    language = replace(model.shape.language, layers=layers)
    return replace(model, shape=replace(model.shape, language=language))


MODELS = st.builds(
    model_of,
    st.sampled_from(
        ["microsoft/phi-2", "lmsys/vicuna-7b-v1.5", "meta-llama/Meta-Llama-3-8B-Instruct"]
    ),
    trains=st.sampled_from(["connector", "full", "lora"]),
    lora_r=st.just(16),
    lora_dropout=st.booleans(),
)
EXECUTIONS = st.builds(
    Execution,
    world_size=st.sampled_from([1, 2, 8]),
    zero_stage=st.sampled_from([0, 2, 3]),
    activation_checkpointing=st.booleans(),
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
    attention=st.sampled_from(["sdpa", "flash", "xformers"]),
    device=st.sampled_from(["cpu", "cuda"]),
)
SIZES = st.builds(
    MicroBatchShape,
    samples=st.integers(1, 4),
    tokens=st.integers(1200, 6000),
    images=st.integers(0, 2),
    label_positions=st.integers(0, 1000),
)


@settings(max_examples=30, deadline=None)
@given(
    MODELS,
    EXECUTIONS,
    st.booleans(),
    SIZES,
    st.sampled_from(["tokens", "images", "label_positions"]),
    st.integers(1, 2000),
)
def test_larger_micro_batch_never_takes_less(
    model: TrainedModel,
    execution: Execution,
    accumulates: bool,
    size: MicroBatchShape,
    field: str,
    more: int,
) -> None:
    larger = replace(size, **{field: getattr(size, field) + more})
    less, most = (
        memory_of(model, execution, each, accumulates=accumulates) for each in (size, larger)
    )
    assert most.peak >= less.peak


@settings(max_examples=25, deadline=None)
@given(MODELS, EXECUTIONS, SIZES, st.integers(2, 64))
def test_more_ranks_never_take_more_each(
    model: TrainedModel, execution: Execution, size: MicroBatchShape, times: int
) -> None:
    few, many = (
        execution.model_copy(update={"world_size": world_size}) for world_size in (2, 2 * times)
    )
    assert memory_of(model, many, size).peak <= memory_of(model, few, size).peak


@settings(max_examples=25, deadline=None)
@given(MODELS, EXECUTIONS, st.booleans(), SIZES)
def test_activation_checkpointing_never_takes_more(
    model: TrainedModel, execution: Execution, accumulates: bool, size: MicroBatchShape
) -> None:
    kept, less = (
        memory_of(
            model,
            execution.model_copy(update={"activation_checkpointing": on}),
            size,
            accumulates=accumulates,
        )
        for on in (False, True)
    )
    assert less.phases[KEPT][LANGUAGE] <= kept.phases[KEPT][LANGUAGE]
    assert less.peak <= kept.peak


@settings(max_examples=25, deadline=None)
@given(MODELS, EXECUTIONS, st.booleans(), SIZES)
def test_parts_sum_to_the_peak_of_the_largest_phase(
    model: TrainedModel, execution: Execution, accumulates: bool, size: MicroBatchShape
) -> None:
    memory = memory_of(model, execution, size, accumulates=accumulates)
    assert tuple(memory.parts) == PARTS
    largest = max(sum(parts.values()) for parts in memory.phases.values())
    assert sum(memory.parts.values()) == memory.peak == largest
    assert all(size >= 0 for size in memory.parts.values())
    assert len(memory.lines()) == len(PARTS) + 1


@settings(max_examples=10, deadline=None)
@given(MODELS, EXECUTIONS, st.booleans(), st.integers(1200, 6000))
def test_every_phase_is_linear_in_the_layers(
    model: TrainedModel, execution: Execution, accumulates: bool, tokens: int
) -> None:
    """Three layers are traced; tracing all nine gives the same bytes."""
    deep, size = with_layers(model, 9), (tokens, 1, 10)
    traced = traced_execution(deep, execution)
    short = memory_module._activations(deep, traced, size, accumulates=accumulates)
    whole = memory_module._phases(deep, traced, size, layers=9, accumulates=accumulates)
    assert {phase: sum(parts.values()) for phase, parts in short.items()} == {
        phase: sum(parts.values()) for phase, parts in whole.items()
    }


@settings(max_examples=20, deadline=None)
@given(
    MODELS,
    EXECUTIONS,
    st.booleans(),
    st.integers(2, 9000),
    st.integers(1, 12),
    st.integers(2, 9000),
)
def test_every_phase_is_linear_in_the_micro_batch(
    model: TrainedModel,
    execution: Execution,
    accumulates: bool,
    text: int,
    images: int,
    label_positions: int,
) -> None:
    """Four sizes were traced; tracing this one gives the same bytes in every phase."""
    model, traced = with_layers(model, 2), traced_execution(model, execution)
    size = text + images * model.shape.image_tokens, images, label_positions
    meter = Meter()
    TracedStep(model, traced, meter, layers=2, accumulates=accumulates).run(*size)
    found = peaks(model, traced, size, layers=2, accumulates=accumulates)
    assert found.keys() == meter.peaks.keys()
    for phase, parts in meter.peaks.items():
        assert sum(parts.values()) == sum(found[phase].values()), phase


@settings(max_examples=20, deadline=None)
@given(MODELS, EXECUTIONS, st.booleans())
def test_executions_that_are_traced_as_one_allocate_alike(
    model: TrainedModel, execution: Execution, accumulates: bool
) -> None:
    model, size = with_layers(model, 2), (2000, 1, 100)
    own, shared = (
        peaks(model, each, size, layers=2, accumulates=accumulates)
        for each in (execution, traced_execution(model, execution))
    )
    assert own == shared


def test_traced_step_frees_everything_but_gradients() -> None:
    meter, model = Meter(), with_layers(model_of(), 2)
    execution = Execution(dtype="bf16", activation_checkpointing=True)
    step = TracedStep(model, execution, meter, layers=2, accumulates=False)
    step.run(1000, 1, 100)
    left = {part: size for part, size in meter.now.items() if size}
    assert left == {"gradients": 4 * model.trained}


def test_tape_counts_referenced_storage() -> None:
    meter = Meter()
    tape = Tape(meter, autocast=False)
    first = tape.new(10, 4)
    second = tape.new(5, 2)
    assert sum(meter.now.values()) == 50
    del first
    assert sum(meter.now.values()) == 10
    assert second.data().storage is second.storage


def test_cpu_offload_moves_the_optimizer_to_host_ram() -> None:
    execution = Execution(
        device="cuda",
        world_size=8,
        zero_stage=3,
        activation_checkpointing=True,
        dtype="bf16",
        attention="flash",
    )
    size = MicroBatchShape(samples=1, tokens=1000, images=1, label_positions=100)
    here, away = (
        memory_of(model_of(), execution.model_copy(update={"cpu_offload": on}), size)
        for on in (False, True)
    )
    assert here.host == 0 < here.parts["optimizer"]
    assert away.parts["optimizer"] == away.parts["gradients"] == 0
    assert away.host >= here.parts["optimizer"] + here.parts["gradients"]
    assert away.lines()[-1].startswith("host")


def test_zero_constants_are_deepspeeds_defaults() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(stage=3)
    assert zero.max_live_parameters == deepspeed.MAX_LIVE_ELEMENTS
    assert zero.sub_group_size == deepspeed.SUB_GROUP_ELEMENTS
    execution = Execution(device="cuda", dtype="bf16", zero_stage=3)
    config = deepspeed_config(execution, world_size=2, max_grad_norm=None)
    written = config["zero_optimization"]
    assert written["overlap_comm"]
    assert written["reduce_bucket_size"] == deepspeed.BUCKET_ELEMENTS
    assert not {"stage3_max_live_parameters", "sub_group_size"} & written.keys()


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/memory.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "memory", raising=False)
    import memory

    yield memory
    for name in ("memory", "memory_trace"):
        sys.modules.pop(name, None)


LARGE = (pytest.mark.ranks, pytest.mark.slow)
"""At real widths, which takes seconds: not for every change."""


@pytest.mark.parametrize(
    "name",
    [
        "tiny_stage1 replicated kept",
        "tiny_stage2 replicated checkpointing",
        "tiny_stage2 half kept",
        "tiny_stage2_lora replicated checkpointing",
        "vicuna7b_clip_sti_conv_stage1 half kept",
        "vicuna7b_clip_efficient_stage1 half kept",
        *(
            pytest.param(f"vicuna7b_clip_{row}_stage1 replicated kept", marks=LARGE)
            for row in ("efficient_before", "sci_conv", "dci_linear", "convnext_mgm")
        ),
        *(
            pytest.param(f"vicuna7b_clip_{row}_stage2 {kept}", marks=LARGE)
            for row in ("anyres", "tuned", "sti_conv")
            for kept in ("replicated kept", "half checkpointing")
        ),
        pytest.param("vicuna7b_clip_convnext_mgm_stage1 half kept", marks=LARGE),
    ],
)
def test_traced_step_takes_what_the_memory_model_says(benchmark: Any, name: str) -> None:
    layers = None if name.startswith("tiny") else 1
    (case,) = [
        case
        for case in benchmark.cases([name.split()[0]], samples=2, layers=layers)
        if case.name == name
    ]
    result = benchmark.compare(case)
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(
        1.0, abs=0.05 if layers is None else 0.01
    )


@pytest.mark.parametrize(("zero_stage", "checkpointing"), [(2, False), (0, True)])
def test_traced_step_of_a_trained_tower(
    benchmark: Any, zero_stage: int, checkpointing: bool
) -> None:
    (case, *_) = benchmark.cases(["tiny_stage2"], samples=2, layers=None)
    case = replace(
        case,
        model=replace(case.model, trains_tower=True),
        execution=case.execution.model_copy(
            update={"zero_stage": zero_stage, "activation_checkpointing": checkpointing}
        ),
    )
    result = benchmark.compare(case)
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("trains_tower", [False, True])
def test_traced_step_of_tiles(benchmark: Any, trains_tower: bool) -> None:
    (case, *_) = benchmark.cases(["tiny_stage2"], samples=2, layers=None)
    shape = case.model.shape
    tile = shape.tower.image_size
    anyres = AnyRes(pinpoints=((tile, 2 * tile), (2 * tile, 2 * tile)), merge="spatial_unpad")
    tiles = replace(shape, connector=connector_shape(case.connector, shape.tower, anyres))
    assert tiles.connector.views == 5 and tiles.connector.newline
    case = replace(
        case,
        model=replace(case.model, shape=tiles, trains_tower=trains_tower),
        micro_batch=benchmark.micro_batch_of(2, tiles, 2),
    )
    result = benchmark.compare(case)
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("zero_stage", "checkpointing"),
    [(2, False), pytest.param(0, True, marks=LARGE)],
)
def test_traced_step_with_a_second_tower(
    benchmark: Any, zero_stage: int, checkpointing: bool
) -> None:
    (case, *_) = benchmark.cases(["tiny_stage2"], samples=4, layers=None)
    mining = Mining(image_size=224, window=8, drop_path=0.1)
    connector = case.connector.model_copy(update={"mining": mining})
    shape = replace(
        case.model.shape,
        connector=replace(case.model.shape.connector, connector=connector),
        high_resolution=ConvTower(widths=(16, 32), depths=(2, 1)),
    )
    case = replace(
        case,
        connector=connector,
        model=replace(case.model, shape=shape),
        execution=case.execution.model_copy(
            update={"zero_stage": zero_stage, "activation_checkpointing": checkpointing}
        ),
    )
    result = benchmark.compare(case)
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.ranks
@pytest.mark.slow
def test_traced_adapters_of_tiles_in_several_passes(benchmark: Any) -> None:
    """Ten images of five views are more than pass the tower at a time."""
    (case, *_) = benchmark.cases(["vicuna7b_clip_anyres_stage2"], samples=10, layers=1)
    adapted = replace(case.model, trains="lora", lora_r=128, lora_dropout=True)
    result = benchmark.compare(replace(case, model=adapted))
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(1.0, abs=0.01)


def test_benchmark_fails_on_a_wrong_estimate(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same step against a model that forgets that activations are kept."""

    def forgets(model: TrainedModel, execution: Execution, *size: Any, **options: Any) -> Any:
        wrong = execution.model_copy(update={"activation_checkpointing": True})
        return memory_of(model, wrong, *size, **options)

    case = benchmark.cases(["tiny_stage2"], samples=2, layers=None)[0]
    assert case.name == "tiny_stage2 replicated kept"
    monkeypatch.setattr(benchmark, "memory_of", forgets)
    assert {"language model", "peak"} <= set(benchmark.compare(case)["off"])
