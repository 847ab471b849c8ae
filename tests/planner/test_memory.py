"""The memory model: what has to hold whatever the numbers are, and traced steps of the tiny model
beside it.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.planner import memory as memory_module
from densekit.planner import model_states as states
from densekit.planner.memory import PARTS, Layout, Row, memory_of
from densekit.planner.memory_trace.autograd import Meter, Tape
from densekit.planner.memory_trace.interpolate import peaks
from densekit.planner.memory_trace.model import KEPT, LANGUAGE, Settings, Step
from densekit.spec.architectures import LANGUAGE_MODELS, TOWERS, ModelShape, connector_shape
from densekit.spec.connector import Connector
from densekit.train.engines import process_group as accelerators

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CONNECTOR = Connector(kind="dci", groups=((*range(12),), (*range(12, 24),)))


def shape_with(language: str = "lmsys/vicuna-7b-v1.5", layers: int | None = None) -> ModelShape:
    tower = TOWERS["openai/clip-vit-large-patch14-336"]
    shape = LANGUAGE_MODELS[language]
    shape = replace(shape, layers=layers) if layers else shape
    return ModelShape(language=shape, tower=tower, connector=connector_shape(CONNECTOR, tower))


LANGUAGES = st.sampled_from(
    ["microsoft/phi-2", "lmsys/vicuna-7b-v1.5", "meta-llama/Meta-Llama-3-8B-Instruct"]
)
LAYOUTS = st.builds(
    Layout,
    world=st.sampled_from([1, 2, 8]),
    zero_stage=st.sampled_from([0, 2, 3]),
    checkpointing=st.booleans(),
    offload=st.just(False),
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
    attention=st.sampled_from(["sdpa", "flash", "xformers"]),
    trains=st.sampled_from(["connector", "full", "lora"]),
    lora_r=st.just(16),
    lora_dropout=st.booleans(),
    device=st.sampled_from(["cpu", "cuda"]),
    accumulates=st.booleans(),
)
ROWS = st.builds(
    Row,
    samples=st.integers(1, 4),
    tokens=st.integers(1200, 6000),
    images=st.integers(0, 2),
    supervised=st.integers(0, 1000),
)


@settings(max_examples=30, deadline=None)
@given(
    LANGUAGES,
    LAYOUTS,
    ROWS,
    st.sampled_from(["tokens", "images", "supervised"]),
    st.integers(1, 2000),
)
def test_a_larger_row_never_takes_less(
    language: str, layout: Layout, row: Row, field: str, more: int
) -> None:
    shape = shape_with(language)
    larger = replace(row, **{field: getattr(row, field) + more})
    assert memory_of(shape, layout, larger).peak >= memory_of(shape, layout, row).peak


@settings(max_examples=25, deadline=None)
@given(LANGUAGES, LAYOUTS, ROWS, st.integers(2, 64))
def test_more_ranks_never_take_more(language: str, layout: Layout, row: Row, times: int) -> None:
    shape, many = shape_with(language), replace(layout, world=2 * times)
    assert memory_of(shape, many, row).peak <= memory_of(shape, replace(layout, world=2), row).peak


@settings(max_examples=25, deadline=None)
@given(LANGUAGES, LAYOUTS, ROWS)
def test_checkpointing_never_keeps_more(language: str, layout: Layout, row: Row) -> None:
    shape = shape_with(language)
    kept, less = (memory_of(shape, replace(layout, checkpointing=on), row) for on in (False, True))
    assert less.moments[KEPT][LANGUAGE] <= kept.moments[KEPT][LANGUAGE]
    assert less.peak <= kept.peak


@settings(max_examples=25, deadline=None)
@given(LANGUAGES, LAYOUTS, ROWS)
def test_parts_sum_to_the_peak_of_the_largest_moment(
    language: str, layout: Layout, row: Row
) -> None:
    memory = memory_of(shape_with(language), layout, row)
    assert tuple(memory.parts) == PARTS
    assert (
        sum(memory.parts.values())
        == memory.peak
        == max(sum(parts.values()) for parts in memory.moments.values())
    )
    assert all(size >= 0 for size in memory.parts.values())
    assert len(memory.lines()) == len(PARTS) + 1


@settings(max_examples=10, deadline=None)
@given(LANGUAGES, LAYOUTS, ROWS)
def test_every_moment_is_linear_in_the_layers(language: str, layout: Layout, row: Row) -> None:
    """Three layers are followed; following all nine gives the same bytes."""
    shape = shape_with(language, layers=9)
    wanted = memory_module._settings(shape, layout)
    short = memory_module._activations(shape, wanted, row.tokens, 1, 10)
    whole = memory_module._followed(shape, wanted, row.tokens, 1, 10, 9)
    assert {moment: sum(parts.values()) for moment, parts in short.items()} == {
        moment: sum(parts.values()) for moment, parts in whole.items()
    }


@settings(max_examples=20, deadline=None)
@given(LANGUAGES, LAYOUTS, st.integers(2, 9000), st.integers(1, 12), st.integers(2, 9000))
def test_every_row_lies_on_the_lines(
    language: str, layout: Layout, text: int, images: int, supervised: int
) -> None:
    """Four rows were followed; following this one gives the same bytes in every moment."""
    shape = shape_with(language, layers=2)
    wanted, tokens = memory_module._settings(shape, layout), text + images * shape.image_tokens
    meter = Meter()
    Step(shape, wanted, meter, layers=2).run(tokens, images, supervised)
    found = peaks(shape, wanted, tokens, images, supervised, 2)
    assert found.keys() == meter.peaks.keys()
    for moment, parts in meter.peaks.items():
        assert sum(parts.values()) == sum(found[moment].values()), moment


def test_a_step_leaves_nothing_behind() -> None:
    """Every tensor of the row is freed; only gradients stay."""
    meter = Meter()
    wanted = Settings(
        trains="full",
        checkpointing=True,
        attention="sdpa",
        on_gpu=False,
        width=2,
        masters=True,
        keeps_gradients=True,
        lora_r=0,
        lora_dropout=False,
    )
    shape = shape_with(layers=2)
    step = Step(shape, wanted, meter, layers=2)
    step.run(1000, 1, 100)
    trained = shape.projector_parameters + shape.language.parameters
    assert {part: size for part, size in meter.now.items() if size} == {"gradients": 4 * trained}


def test_a_tape_counts_what_is_referenced() -> None:
    meter = Meter()
    tape = Tape(meter, autocast=False)
    first = tape.new(10, 4)
    second = tape.new(5, 2)
    assert sum(meter.now.values()) == 50
    del first
    assert sum(meter.now.values()) == 10
    assert second.data().storage is second.storage


def test_offload_moves_the_optimiser_to_the_host() -> None:
    layout = Layout(
        world=8,
        zero_stage=3,
        checkpointing=True,
        offload=False,
        dtype="bf16",
        attention="flash",
        trains="full",
    )
    row = Row(samples=1, tokens=1000, images=1, supervised=100)
    here, away = (memory_of(shape_with(), replace(layout, offload=on), row) for on in (False, True))
    assert here.host == 0 < here.parts["optimiser"]
    assert away.parts["optimiser"] == away.parts["gradients"] == 0
    assert away.host >= here.parts["optimiser"] + here.parts["gradients"]
    assert away.lines()[-1].startswith("host")


def test_constants_are_those_of_the_trainer() -> None:
    assert states.BUCKET_ELEMENTS == accelerators.BUCKET_ELEMENTS
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(stage=3)
    assert zero.max_live_parameters == states.LIVE_ELEMENTS
    assert zero.sub_group_size == states.SUBGROUP_ELEMENTS
    execution = accelerators.Execution(device="cuda", dtype="bf16", zero_stage=3)
    written = accelerators.deepspeed_config(execution, world_size=2, max_grad_norm=None)[
        "zero_optimization"
    ]
    assert (
        written["overlap_comm"]
        and not {"stage3_max_live_parameters", "sub_group_size"} & written.keys()
    )


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/memory.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "memory", raising=False)
    import memory

    yield memory
    for name in ("memory", "memory_trace"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name",
    [
        "tiny_stage1 replicated kept",
        "tiny_stage2 replicated checkpointing",
        "tiny_stage2 half kept",
        "tiny_stage2_lora replicated checkpointing",
    ],
)
def test_a_traced_step_takes_what_the_model_says(benchmark: Any, name: str) -> None:
    (case,) = [
        case
        for case in benchmark.cases([name.split()[0]], samples=2, layers=None)
        if case.name == name
    ]
    result = benchmark.compare(case)
    assert result["off"] == []
    assert result["figures"]["peak"]["ratio"] == pytest.approx(1.0, abs=0.05)


def test_a_model_that_is_off_is_found(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step against a model that forgets that activations are kept."""

    def forgets(shape: ModelShape, layout: Layout, row: Row) -> Any:
        return memory_of(shape, replace(layout, checkpointing=True), row)

    case = benchmark.cases(["tiny_stage2"], samples=2, layers=None)[0]
    assert case.name == "tiny_stage2 replicated kept"
    monkeypatch.setattr(benchmark, "memory_of", forgets)
    assert {"language model", "peak"} <= set(benchmark.compare(case)["off"])
