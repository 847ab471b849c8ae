"""Plans on known GPUs: every recipe on the paper's and on other hardware, random recipes, and
refusals that name what fits.
"""

import itertools
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densekit.errors import DataError, UsageError
from densekit.planner.alternatives import PAPER_LORA, alternatives
from densekit.planner.candidates import (
    DEFAULT_MICRO_BATCH,
    NOTHING_ASKED,
    SearchSpace,
    largest,
)
from densekit.planner.cluster import HOST_USABLE, USABLE, Cluster, usual_nodes
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.planner.workload import Workload
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.capability import container_image_for
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import ADVISED, BY_NAME, HARDWARE, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

CLUSTER = re.compile(r"--gpu (\S+) --gpus (\d+)(?: --nodes (\d+))?")
KINDS = ("a100-80g", "v100-32g", "h200-141g")


@cache
def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, overrides)


def plan_on(
    recipe: Recipe,
    gpu: str,
    gpus: int,
    request: ExecutionRequest = NOTHING_ASKED,
    nodes: int | None = None,
    **more: Any,
) -> Plan:
    row = hardware(gpu)
    nodes = usual_nodes(row, gpus) if nodes is None else nodes
    where = {"device": "cuda", "world_size": gpus, "nodes": nodes}
    return make_plan(recipe, request.model_copy(update=where), hardware=row, **more)


def space_of(recipe: Recipe, request: ExecutionRequest = NOTHING_ASKED) -> SearchSpace:
    return SearchSpace(workload=Workload.of(recipe, None), request=request)


def check(plan: Plan) -> None:
    """A plan feeds exactly the global batch, and its worst-case micro-batch fits."""
    assert (
        sum(map(sum, plan.micro_batches)) == plan.global_batch_size
        and len(plan.micro_batches) == plan.execution.world_size
    )
    assert {len(rank) for rank in plan.micro_batches} == {plan.micro_batches_per_step}
    assert max(map(max, plan.micro_batches)) <= plan.execution.micro_batch_size
    assert plan.execution.tokens_per_micro_batch and plan.execution.workers in (2, 3, 4)
    row = BY_NAME[plan.gpu]
    assert plan.fits is True and plan.memory_gib is not None
    assert plan.memory_gib.peak <= USABLE * row.memory_mib / 1024 + 0.01
    host = (plan.memory_gib.host or 0) * plan.execution.world_size / plan.execution.nodes
    assert host <= HOST_USABLE * row.host_gib + 0.1 and bool(host) == plan.execution.cpu_offload
    assert plan.execution.zero_stage == 3 or not plan.execution.cpu_offload
    image = container_image_for(row.capability)
    assert plan.container_image == (image.container_image if image else None)
    assert row.planned_only or image is not None
    assert (plan.execution.dtype, plan.execution.attention) == (
        ("fp16", "xformers") if row.capability < (8, 0) else ("bf16", "flash")
    )


def on_papers(name: str) -> Plan:
    paper = recipe(name).hardware
    assert paper is not None
    return plan_on(recipe(name), paper.gpu, paper.gpus, nodes=paper.nodes)


PAPERS = [
    name for name in recipe_names() if (paper := recipe(name).hardware) and paper.gpu != "cpu"
]


def test_every_paper_recipe_names_its_hardware() -> None:
    assert len(PAPERS) > 50
    assert [name for name in recipe_names() if not name.startswith("tiny")] == PAPERS


def shape(name: str) -> tuple[object, ...]:
    """What memory follows from: recipes that differ only in data or title have one shape."""
    math = recipe(name)
    models = math.models
    kind = math.connector.kind, bool(math.lora), math.stage
    return models.language_model, models.vision_tower, kind, math.reference.per_device_batch_size


ONE_OF_A_SHAPE = list({shape(name): name for name in PAPERS}.values())


@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_fits_on_the_papers_hardware(name: str) -> None:
    plan = on_papers(name)
    check(plan)
    assert plan.disk_gib is not None and plan.disk_gib > 15
    if plan.steps is not None:
        assert plan.hours is not None and 0 < plan.hours.low < plan.hours.high
    official = plan.official_batch
    assert official is not None
    assert official.per_device_batch_size == recipe(name).reference.per_device_batch_size
    assert official.average_peak_gib <= official.peak_gib


@pytest.mark.parametrize("name", PAPERS)
def test_recipe_notes_say_whether_the_official_batch_fits(name: str) -> None:
    """The figure in its notes is that of the memory model."""
    plan, notes = on_papers(name), " ".join(recipe(name).notes)
    official = plan.official_batch
    assert official is not None
    recorded = re.search(
        r"the official (\d+) samples per device do not fit .* "
        r"an average micro-batch needs ([\d.]+) GiB",
        notes,
    )
    assert (recorded is None) == official.average_fits
    if recorded:
        figures = int(recorded[1]), float(recorded[2])
        assert figures == (official.per_device_batch_size, round(official.average_peak_gib, 1))
    assert ("only with CPU offload" in notes) == plan.execution.cpu_offload


@pytest.mark.parametrize("gpu", KINDS)
@pytest.mark.parametrize("name", ONE_OF_A_SHAPE)
def test_every_shape_fits_or_is_refused_with_offers_on_other_gpus(name: str, gpu: str) -> None:
    for gpus in (1, 2, 3, 4, 8, 16, 32):
        try:
            plan = plan_on(recipe(name), gpu, gpus)
        except UsageError as error:
            check_offers(recipe(name), str(error))
        else:
            check(plan)
            assert plan.steps == on_cpu(name)


@cache
def on_cpu(name: str) -> int | None:
    return make_plan(recipe(name)).steps


def check_offers(recipe: Recipe, message: str) -> None:
    """Everything that a refusal names can be planned."""
    assert "does not fit: " in message
    offered = message.partition("what fits: ")[2].split("; ")
    assert offered[0], message
    for offer in offered:
        cluster = CLUSTER.match(offer)
        assert cluster, offer
        gpu, gpus, nodes = cluster.groups()
        options: dict[str, Any] = {}
        if "--zero-stage" in offer:
            options = {
                "zero_stage": int(re.findall(r"--zero-stage (\d)", offer)[0]),
                "cpu_offload": "--offload" in offer,
            }
        adapted = "--set 'lora=" in offer
        other = recipe.model_copy(update={"lora": PAPER_LORA}) if adapted else recipe
        check(plan_on(other, gpu, int(gpus), ExecutionRequest(**options), nodes=int(nodes or 1)))


numbers = st.integers
SHAPES = st.fixed_dictionaries(
    {
        "model_type": st.sampled_from(["llama", "mistral", "phi"]),
        "hidden_size": numbers(1, 96).map(lambda size: 128 * size),
        "intermediate_size": numbers(1, 300).map(lambda size: 128 * size),
        "num_hidden_layers": numbers(1, 100),
        "num_attention_heads": st.sampled_from([1, 2, 4, 8, 16, 32]),
        "vocab_size": numbers(1000, 260_000),
    }
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=SHAPES,
    reference=st.tuples(numbers(1, 32), numbers(1, 32), numbers(1, 4)),
    stage=st.sampled_from(["stage1", "stage2", "stage2_lora"]),
    max_length=numbers(600, 8192),
    share=st.floats(0, 1),
    gpu=st.sampled_from([row.name for row in HARDWARE]),
)
def test_random_models_fit_or_are_refused(
    models: Path,
    shape: dict[str, Any],
    reference: tuple[int, int, int],
    stage: str,
    max_length: int,
    share: float,
    gpu: str,
) -> None:
    (models / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    values = recipe(
        "vicuna7b_clip_stage1" if stage == "stage1" else "vicuna7b_clip_stage2"
    ).model_dump(mode="json")
    values["models"]["language_model"] = str(models)
    values["data"]["max_length"] = max_length
    values["lora"] = {"r": 16, "alpha": 32} if stage == "stage2_lora" else None
    values["reference"] = dict(
        zip(("gpus", "per_device_batch_size", "grad_accum_steps"), reference, strict=True)
    )
    values["global_batch_size"] = total = reference[0] * reference[1] * reference[2]
    random_recipe = Recipe.model_validate(values)
    gpus = 1 + round(share * (total - 1))
    try:
        plan = plan_on(random_recipe, gpu, gpus, roots=Roots())
    except UsageError as error:
        assert "does not fit: " in str(error)
        if gpu == "h100-80g":
            return
        smaller = {"a100-80g": "a100-40g", "h200-141g": "h100-80g", "v100-32g": "v100-16g"}.get(gpu)
        if smaller and BY_NAME[smaller].host_gib <= BY_NAME[gpu].host_gib:
            with pytest.raises(UsageError):
                plan_on(random_recipe, smaller, gpus, roots=Roots())
        return
    check(plan)
    longest = random_recipe.data.max_length
    most = max(DEFAULT_MICRO_BATCH, reference[1]) * longest
    assert longest <= (plan.execution.tokens_per_micro_batch or 0) <= most
    alone = make_plan(random_recipe)
    assert (plan.steps, plan.samples_dropped, plan.samples_repeated) == (
        alone.steps,
        alone.samples_dropped,
        alone.samples_repeated,
    )


SEVENTY = ("llama3_70b_stage2_lora", "lora=null")


@pytest.mark.parametrize(
    ("name", "gpu", "gpus", "options", "message"),
    [
        (
            SEVENTY,
            "a100-80g",
            1,
            {},
            r"needs [\d.]+ GiB of each GPU, and 95% of 80.0 can be filled; what fits: --gpu",
        ),
        (
            ("vicuna13b_stage2",),
            "a100-40g",
            1,
            {"cpu_offload": False},
            "--gpus 1 --zero-stage 3 --offload",
        ),
        (
            ("vicuna13b_stage2",),
            "a100-40g",
            1,
            {"cpu_offload": False},
            r"--set 'lora=\{r: 128, alpha: 256\}' \(another",
        ),
        (
            ("vicuna7b_stage2",),
            "rtx4090-24g",
            1,
            {},
            "CPU offload needs 1[0-9][0-9] GiB of host RAM in each node, of 128",
        ),
        (
            ("vicuna7b_stage2",),
            "v100-32g",
            8,
            {"dtype": "bf16"},
            "bf16 needs 8.0; use --dtype fp16",
        ),
        (("vicuna7b_stage2",), "v100-32g", 8, {"attention": "flash"}, "flash-attn needs 8.0"),
        (
            ("vicuna7b_stage2",),
            "a100-80g",
            8,
            {"cpu_offload": True, "zero_stage": 2},
            "use --zero-stage 3",
        ),
        (
            ("vicuna7b_stage2",),
            "a100-80g",
            129,
            {},
            "feeds 128 samples per step, so it runs on 1 to 128 processes",
        ),
        (("vicuna7b_stage2",), "a100-80g", 0, {}, "use --gpus 1 "),
    ],
)
def test_refusal_names_the_reason_and_what_fits(
    name: tuple[str, ...], gpu: str, gpus: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        plan_on(recipe(*name), gpu, gpus, ExecutionRequest(**options))
    if "does not fit" in str(caught.value):
        check_offers(recipe(*name), str(caught.value))


@pytest.mark.parametrize("nodes", [0, -1, 3, 16])
def test_uneven_nodes_are_refused(nodes: int) -> None:
    with pytest.raises(UsageError, match=rf"--nodes {nodes}: .*; use --nodes (1|2|8)$"):
        plan_on(recipe("vicuna7b_stage2"), "a100-80g", 8, nodes=nodes)


def test_requested_options_are_kept() -> None:
    seven = recipe("vicuna7b_stage2")
    for stage, checkpointing in itertools.product((2, 3), (True, False)):
        request = ExecutionRequest(
            zero_stage=stage,  # type: ignore[arg-type]
            activation_checkpointing=checkpointing,
        )
        plan = plan_on(seven, "h200", 8, request)
        check(plan)
        chosen = plan.execution
        assert (chosen.zero_stage, chosen.activation_checkpointing) == (stage, checkpointing)
        assert len(plan.why["candidates"]) == 1
        assert any(note.endswith("as requested") for note in plan.notes)
    offloaded = plan_on(seven, "h200", 8, ExecutionRequest(cpu_offload=True))
    assert offloaded.execution.cpu_offload
    half = plan_on(seven, "a100-80g", 8, ExecutionRequest(dtype="fp16"))
    assert half.execution.attention == "flash", "the container image a100 has no xformers"
    assert half.container_image == "a100"


def test_explicit_micro_batch_is_planned_even_if_it_does_not_fit() -> None:
    plan = plan_on(recipe("vicuna13b_stage2"), "a100-40g", 2, ExecutionRequest(micro_batch_size=64))
    assert (plan.fits, plan.execution.micro_batch_size, plan.execution.world_size) == (False, 64, 2)
    assert any(
        note.startswith("does not fit: ") and "--micro-batch 64 was given" in note
        for note in plan.notes
    )


def test_fastest_candidate_wins_and_cpu_offload_is_the_last_resort() -> None:
    space = space_of(recipe("vicuna7b_stage2"))
    cluster = Cluster(hardware=hardware("h200"), world_size=8, nodes=1)
    candidates = space.candidates(cluster)
    seconds = [candidate.time.seconds.geometric_mean for candidate in candidates]
    assert len(set(seconds)) == len(candidates) == 4
    best = space.best(cluster)
    assert best is not None and best.fits
    assert best.time.seconds.geometric_mean == min(
        value for value, candidate in zip(seconds, candidates, strict=True) if candidate.fits
    )
    near = plan_on(recipe("vicuna7b_stage2"), "a100-80g", 8)
    assert not near.execution.cpu_offload
    assert not any("offload" in line for line in near.why["candidates"])
    alone = plan_on(recipe("vicuna7b_stage2"), "a100-80g", 1)
    assert any(
        re.match(r"CPU offload: \d+ GiB of host RAM in each node; 2048 GiB", note)
        for note in alone.notes
    )
    assert alone.execution.cpu_offload
    assert any("does not fit" in line for line in alone.why["candidates"])
    assert not plan_on(recipe("vicuna7b_stage1"), "a100-80g", 1).execution.cpu_offload
    single = Cluster(hardware=hardware("a100-80g"), world_size=1, nodes=1)
    fitting = [candidate.execution for candidate in space.candidates(single) if candidate.fits]
    assert {execution.activation_checkpointing for execution in fitting} == {True, False}
    assert all(execution.cpu_offload for execution in fitting)


def test_alternatives_fit_and_use_the_fewest_gpus() -> None:
    thirteen = recipe("vicuna13b_stage2")
    found = alternatives(space_of(thirteen), 5198, 8)
    spent = [alternative.gpu_hours.geometric_mean for alternative in found]
    assert spent == sorted(spent) and len(found) >= len(ADVISED)
    for alternative in found:
        execution = alternative.candidate.execution
        assert execution.gpu is not None
        plan = plan_on(thirteen, execution.gpu, execution.world_size)
        check(plan)
        assert plan.hours == alternative.hours
        if execution.world_size not in (1, 8):
            with pytest.raises(UsageError):
                plan_on(thirteen, execution.gpu, execution.world_size // 2)
    bf16 = alternatives(space_of(thirteen, ExecutionRequest(dtype="bf16")), 5198, 8)
    kinds = {alternative.candidate.execution.gpu for alternative in bf16}
    assert kinds.isdisjoint({"v100-16g", "v100-32g"})


def test_unknown_gpu_and_unknown_model_are_planned_by_rules() -> None:
    unnamed = make_plan(recipe("vicuna7b_stage2"), ExecutionRequest(world_size=8, device="cuda"))
    assert (unnamed.gpu, unnamed.fits, unnamed.hours) == ("cuda", None, None)
    assert unnamed.container_image is None
    assert unnamed.execution.zero_stage == 3 and unnamed.execution.activation_checkpointing
    assert not unnamed.execution.cpu_offload
    assert any("the GPU is not known; name it with --gpu" in note for note in unnamed.notes)
    mine = recipe("vicuna7b_stage2", "models.language_model=nowhere/mine")
    unknown = plan_on(mine, "v100-32g", 8)
    assert (unknown.gpu, unknown.container_image) == ("v100-32g", "v100")
    assert (unknown.execution.dtype, unknown.execution.attention) == ("fp16", "xformers")
    assert (unknown.fits, unknown.memory_gib, unknown.hours, unknown.disk_gib) == (
        None,
        None,
        None,
        None,
    )
    assert any("nowhere/mine" in note for note in unknown.notes)


@given(values=st.lists(st.floats(0, 1e12), min_size=1, max_size=64), middle=st.floats(-1e12, 1e12))
def test_largest_finds_the_last_value_not_above_zero(values: list[float], middle: float) -> None:
    rising = [value + middle for value in sorted(values)]
    asked: list[int] = []

    def value(number: int) -> float:
        asked.append(number)
        return rising[number - 1]

    assert largest(len(rising), value) == sum(number <= 0 for number in rising)
    assert len(asked) == len(set(asked)), "no number is asked for twice"
    assert largest(0, value) == 0


@pytest.mark.parametrize(
    ("measured", "says"), [(False, "GiB are assumed, as in a usual node"), (True, "this host has ")]
)
def test_note_on_cpu_offload_says_whose_host_ram_it_is(measured: bool, says: str) -> None:
    row = replace(BY_NAME["a100-80g"], host_measured=measured)
    request = ExecutionRequest(device="cuda", world_size=1)
    plan = make_plan(recipe("vicuna7b_clip_stage2"), request, hardware=row)
    (note,) = [note for note in plan.notes if note.startswith("CPU offload: ")]
    assert says in note


def test_largest_asks_for_four_values_on_a_straight_line() -> None:
    for good in range(1, 64):
        asked: list[int] = []

        def value(number: int, good: int = good, asked: list[int] = asked) -> float:
            asked.append(number)
            return (number - good - 0.5) * 1e9

        assert largest(64, value) == good and len(asked) <= 4


def test_wrong_models_are_errors_and_unknown_ones_notes(tmp_path: Path) -> None:
    """Only a model whose shape nobody knows leaves memory open."""
    beyond = recipe("vicuna7b_clip_stage2", "connector={kind: dci, groups: [[40]]}")
    with pytest.raises(
        UsageError, match=r"hidden_states\[40\] does not exist in a vision tower of 24"
    ):
        plan_on(beyond, "h200", 8)
    mine = recipe("vicuna7b_clip_stage2", f"models.language_model={tmp_path}")
    shape = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    for change in ({"num_key_value_heads": "8"}, {"head_dim": "x"}, {"hidden_size": None}):
        (tmp_path / "config.json").write_text(json.dumps({**shape, **change}), encoding="utf-8")
        with pytest.raises(DataError, match=f"{next(iter(change))} must be a positive integer"):
            plan_on(mine, "h200", 8, roots=Roots())
    (tmp_path / "config.json").write_text(
        json.dumps({**shape, "model_type": "qwen2"}), encoding="utf-8"
    )
    assert plan_on(mine, "h200", 8, roots=Roots()).fits is None


def test_cpu_plans_count_offloaded_optimizer_as_host_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    phi2 = recipe("phi2_stage2", "data.max_length=512")
    request = ExecutionRequest(device="cpu", micro_batch_size=1, zero_stage=3, cpu_offload=True)
    two_hosts = request.model_copy(update={"world_size": 2, "nodes": 2})
    plan = make_plan(phi2, request)
    assert plan.memory_gib is not None
    need = plan.memory_gib.peak + (plan.memory_gib.host or 0)
    for have, fits in ((need * 1.01, True), (need * 0.99, False)):
        monkeypatch.setattr("densekit.planner.rules.host_memory", lambda have=have: have * 2**30)
        assert make_plan(phi2, request).fits is fits
        assert make_plan(phi2, two_hosts).fits in (True, fits), "two hosts share it"
