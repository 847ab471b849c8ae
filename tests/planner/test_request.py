"""Plans on GPUs: every recipe on the paper's and on other hardware, random recipes, and what is
refused.
"""

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densekit.errors import DataError, UsageError
from densekit.planner.alternatives import PAPER_LORA, alternatives
from densekit.planner.estimate import interval, job_of
from densekit.planner.plan import Plan, make_plan
from densekit.planner.search import (
    DEFAULT_MICRO_BATCH,
    HOST_USABLE,
    NOTHING,
    USABLE,
    Fixed,
    Place,
    largest,
    usual_nodes,
)
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.hardware import BY_NAME, HARDWARE, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

PLACE = re.compile(r"--gpu (\S+) --gpus (\d+)(?: --nodes (\d+))?")
KINDS = ("a100-80g", "v100-32g", "h200-141g")


@cache
def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, overrides)


def plan_on(
    what: Recipe, gpu: str, gpus: int, fixed: Fixed = NOTHING, nodes: int | None = None, **more: Any
) -> Plan:
    row = hardware(gpu)
    nodes = usual_nodes(row, gpus) if nodes is None else nodes
    return make_plan(what, fixed, gpus=gpus, nodes=nodes, device="cuda", hardware=row, **more)


def check(plan: Plan) -> None:
    """That a plan feeds exactly the global batch, and that its worst row is there to be had."""
    assert (
        sum(map(sum, plan.micro_batches)) == plan.global_batch_size
        and len(plan.micro_batches) == plan.gpus
    )
    assert {len(rank) for rank in plan.micro_batches} == {plan.grad_accum_steps}
    assert max(map(max, plan.micro_batches)) == plan.micro_batch_size
    row = BY_NAME[plan.gpu]
    assert plan.fits is True and plan.memory_gib is not None
    assert plan.memory_gib["peak"] <= USABLE * row.memory_mib / 1024 + 0.01
    host = plan.memory_gib.get("host", 0) * plan.gpus / plan.nodes
    assert host <= HOST_USABLE * row.host_gib + 0.1 and bool(host) == plan.offload
    assert plan.zero_stage == 3 or not plan.offload
    assert plan.image == ("v100" if row.capability == (7, 0) else "a100")
    assert (plan.dtype, plan.attention) == (
        ("fp16", "xformers") if plan.image == "v100" else ("bf16", "flash")
    )


def on_papers(name: str) -> Plan:
    paper = recipe(name).hardware
    assert paper is not None
    return plan_on(recipe(name), paper.gpu, paper.gpus, nodes=paper.nodes)


PAPERS = [
    name for name in recipe_names() if (paper := recipe(name).hardware) and paper.gpu != "cpu"
]


def test_the_papers_recipes_name_their_hardware() -> None:
    assert len(PAPERS) > 50
    assert {name for name in recipe_names() if recipe(name).assets is None} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_fits_the_papers_hardware(name: str) -> None:
    plan = on_papers(name)
    check(plan)
    assert plan.disk_gib is not None and plan.disk_gib > 15
    if plan.steps is not None:
        assert plan.hours is not None and 0 < plan.hours["low"] < plan.hours["high"]
    official = plan.official_batch
    assert (
        official is not None
        and official["per_device_batch_size"] == recipe(name).reference.per_device_batch_size
    )
    assert official["average_peak_gib"] <= official["peak_gib"]


@pytest.mark.parametrize("name", [name for name in PAPERS if not recipe(name).waits_for])
def test_a_recipe_records_what_its_papers_hardware_does_not_hold(name: str) -> None:
    """The figure in its notes is the model's."""
    plan, notes = on_papers(name), " ".join(recipe(name).notes)
    official = plan.official_batch
    assert official is not None
    told = re.search(
        r"the official (\d+) samples per device do not fit .* an average row needs ([\d.]+) GiB",
        notes,
    )
    assert (told is None) == official["average_fits"]
    if told:
        found = int(told[1]), float(told[2])
        assert found == (official["per_device_batch_size"], round(official["average_peak_gib"], 1))
    assert ("only with the optimiser in main memory" in notes) == plan.offload


@pytest.mark.parametrize("gpu", KINDS)
@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_on_other_gpus(name: str, gpu: str) -> None:
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


def check_offers(what: Recipe, message: str) -> None:
    """That everything a refusal names can be planned."""
    assert "does not fit: " in message
    offered = message.partition("what fits: ")[2].split("; ")
    assert offered[0], message
    for offer in offered:
        place = PLACE.match(offer)
        assert place, offer
        gpu, gpus, nodes = place.groups()
        fixed: dict[str, Any] = {}
        if "--zero-stage" in offer:
            fixed = {
                "zero_stage": int(re.findall(r"--zero-stage (\d)", offer)[0]),
                "offload": "--offload" in offer,
            }
        other = what.model_copy(update={"lora": PAPER_LORA}) if "--set 'lora=" in offer else what
        check(plan_on(other, gpu, int(gpus), Fixed(**fixed), nodes=int(nodes or 1)))


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
def test_random_recipes(
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
    what = Recipe.model_validate(values)
    gpus = 1 + round(share * (total - 1))
    try:
        plan = plan_on(what, gpu, gpus, roots=Roots())
    except UsageError as error:
        told = str(error)
        assert "does not fit: " in told
        if gpu == "h100-80g":
            return
        smaller = {"a100-80g": "a100-40g", "h200-141g": "h100-80g", "v100-32g": "v100-16g"}.get(gpu)
        if smaller and BY_NAME[smaller].host_gib <= BY_NAME[gpu].host_gib:
            with pytest.raises(UsageError):
                plan_on(what, smaller, gpus, roots=Roots())
        return
    check(plan)
    assert plan.micro_batch_size <= max(DEFAULT_MICRO_BATCH, reference[1])
    alone = make_plan(what)
    assert (plan.steps, plan.samples_dropped, plan.samples_repeated) == (
        alone.steps,
        alone.samples_dropped,
        alone.samples_repeated,
    )


SEVENTY = ("llama3_70b_stage2_lora", "lora=null")


@pytest.mark.parametrize(
    ("name", "gpu", "gpus", "fixed", "message"),
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
            {"offload": False},
            "--gpus 1 --zero-stage 3 --offload",
        ),
        (
            ("vicuna13b_stage2",),
            "a100-40g",
            1,
            {"offload": False},
            r"--set 'lora=\{r: 128, alpha: 256\}' \(another",
        ),
        (
            ("vicuna7b_stage2",),
            "rtx4090-24g",
            1,
            {},
            "offload needs 1[0-9][0-9] GiB of main memory in each node, of 128",
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
            {"offload": True, "zero_stage": 2},
            "nearest: --zero-stage 3",
        ),
        (
            ("vicuna7b_stage2",),
            "a100-80g",
            129,
            {},
            "feeds 128 samples per step, so 1 to 128 processes can work",
        ),
        (("vicuna7b_stage2",), "a100-80g", 0, {}, "nearest: --gpus 1"),
    ],
)
def test_refusals(
    name: tuple[str, ...], gpu: str, gpus: int, fixed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        plan_on(recipe(*name), gpu, gpus, Fixed(**fixed))
    if "does not fit" in str(caught.value):
        check_offers(recipe(*name), str(caught.value))


@pytest.mark.parametrize("nodes", [0, -1, 3, 16])
def test_nodes_that_share_nothing(nodes: int) -> None:
    with pytest.raises(UsageError, match=rf"--nodes {nodes}: .*; nearest: --nodes (1|2|8)$"):
        plan_on(recipe("vicuna7b_stage2"), "a100-80g", 8, nodes=nodes)


def test_what_the_command_line_fixes_stays() -> None:
    what = recipe("vicuna7b_stage2")
    for stage, checkpointing in itertools.product((2, 3), (True, False)):
        fixed = Fixed(zero_stage=stage, checkpointing=checkpointing)  # type: ignore[arg-type]
        plan = plan_on(what, "h200", 8, fixed)
        check(plan)
        assert (plan.zero_stage, plan.checkpointing, len(plan.why["layouts"])) == (
            stage,
            checkpointing,
            1,
        )
        assert any(note.endswith("as asked for") for note in plan.notes)
    assert plan_on(what, "h200", 8, Fixed(offload=True)).offload
    half = plan_on(what, "a100-80g", 8, Fixed(dtype="fp16"))
    assert (half.attention, half.image) == ("flash", "a100"), "the image a100 holds no xformers"


def test_a_micro_batch_that_does_not_fit_is_planned_where_it_is_asked_for() -> None:
    plan = plan_on(recipe("vicuna13b_stage2"), "a100-40g", 2, Fixed(micro_batch_size=64))
    assert (plan.fits, plan.micro_batch_size, plan.gpus) == (False, 64, 2)
    assert any(
        note.startswith("does not fit: ") and "--micro-batch 64 was asked for" in note
        for note in plan.notes
    )


def test_the_fastest_that_fits_is_taken_and_offload_only_where_nothing_else_fits() -> None:
    job = job_of(recipe("vicuna7b_stage2"), None, NOTHING, None)
    place = Place(hardware=hardware("h200"), gpus=8, nodes=1)
    candidates = job.candidates(place)
    assert len(candidates) == 4 and len({one.time.seconds.middle for one in candidates}) == 4
    best = job.best(place)
    assert best is not None and best.fits
    assert best.time.seconds.middle == min(
        one.time.seconds.middle for one in candidates if one.fits
    )
    near = plan_on(recipe("vicuna7b_stage2"), "a100-80g", 8)
    assert not near.offload and not any("offload" in line for line in near.why["layouts"])
    alone = plan_on(recipe("vicuna7b_stage2"), "a100-80g", 1)
    assert any(
        re.match(r"offload: \d+ GiB of main memory in each node; 2048 GiB", note)
        for note in alone.notes
    )
    assert alone.offload and any("does not fit" in line for line in alone.why["layouts"])
    assert not plan_on(recipe("vicuna7b_stage1"), "a100-80g", 1).offload
    offloaded = [
        one
        for one in job.candidates(Place(hardware=hardware("a100-80g"), gpus=1, nodes=1))
        if one.fits
    ]
    assert {one.layout.checkpointing for one in offloaded} == {True, False} and all(
        one.layout.offload for one in offloaded
    )


def test_alternatives_fit_and_are_the_fewest() -> None:
    what = recipe("vicuna13b_stage2")
    found = alternatives(job_of(what, None, NOTHING, None), 5198, 8)
    spent = [one.gpu_hours.middle for one in found]
    assert spent == sorted(spent) and len(found) >= len(HARDWARE)
    for one in found:
        place = one.candidate.place
        plan = plan_on(what, place.hardware.name, place.gpus)
        check(plan)
        assert plan.hours == interval(one.hours)
        if place.gpus not in (1, 8):
            with pytest.raises(UsageError):
                plan_on(what, place.hardware.name, place.gpus // 2)
    bf16 = alternatives(job_of(what, None, Fixed(dtype="bf16"), None), 5198, 8)
    assert {one.candidate.place.hardware.name for one in bf16}.isdisjoint({"v100-16g", "v100-32g"})


def test_a_gpu_nobody_named_and_models_nobody_knows() -> None:
    unnamed = make_plan(recipe("vicuna7b_stage2"), gpus=8, device="cuda")
    assert (unnamed.gpu, unnamed.fits, unnamed.hours, unnamed.image) == ("cuda", None, None, None)
    assert (unnamed.zero_stage, unnamed.checkpointing, unnamed.offload) == (3, True, False)
    assert any("the GPU is not known (--gpu)" in note for note in unnamed.notes)
    mine = recipe("vicuna7b_stage2", "models.language_model=nowhere/mine")
    unknown = plan_on(mine, "v100-32g", 8)
    assert (unknown.gpu, unknown.dtype, unknown.attention, unknown.image) == (
        "v100-32g",
        "fp16",
        "xformers",
        "v100",
    )
    assert (unknown.fits, unknown.memory_gib, unknown.hours, unknown.disk_gib) == (
        None,
        None,
        None,
        None,
    )
    assert any("nowhere/mine" in note for note in unknown.notes)


@given(values=st.lists(st.floats(0, 1e12), min_size=1, max_size=64), middle=st.floats(-1e12, 1e12))
def test_the_largest_whose_value_is_not_above_0(values: list[float], middle: float) -> None:
    rising = [value + middle for value in sorted(values)]
    asked: list[int] = []

    def value(number: int) -> float:
        asked.append(number)
        return rising[number - 1]

    assert largest(len(rising), value) == sum(one <= 0 for one in rising)
    assert len(asked) == len(set(asked)), "no number is asked for twice"
    assert largest(0, value) == 0


def test_on_a_straight_line_four_values_are_enough() -> None:
    for good in range(1, 64):
        asked: list[int] = []

        def value(number: int, good: int = good, asked: list[int] = asked) -> float:
            asked.append(number)
            return (number - good - 0.5) * 1e9

        assert largest(64, value) == good and len(asked) <= 4


def test_what_is_wrong_is_told_and_not_noted(tmp_path: Path) -> None:
    """Only a model whose shape nobody knows leaves memory open."""
    beyond = recipe("vicuna7b_clip_stage2", "connector={kind: dci, groups: [[40]]}")
    with pytest.raises(
        UsageError, match=r"hidden_states\[40\] is asked of a vision tower of 24 layers"
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
        with pytest.raises(DataError, match=f"{next(iter(change))} is"):
            plan_on(mine, "h200", 8, roots=Roots())
    (tmp_path / "config.json").write_text(
        json.dumps({**shape, "model_type": "qwen2"}), encoding="utf-8"
    )
    assert plan_on(mine, "h200", 8, roots=Roots()).fits is None
    with pytest.raises(UsageError, match="--keep 0: at least 1"):
        make_plan(recipe("tiny_stage2"), keep=0)


def test_an_optimiser_in_main_memory_counts_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    what, fixed = (
        recipe("phi2_stage2", "data.max_length=512"),
        Fixed(micro_batch_size=1, zero_stage=3, offload=True),
    )
    plan = make_plan(what, fixed, device="cpu")
    assert plan.memory_gib is not None
    need = plan.memory_gib["peak"] + plan.memory_gib["host"]
    for have, fits in ((need * 1.01, True), (need * 0.99, False)):
        monkeypatch.setattr("densekit.planner.layout.host_memory", lambda have=have: have * 2**30)
        assert make_plan(what, fixed, device="cpu").fits is fits
        assert make_plan(what, fixed, device="cpu", gpus=2, nodes=2).fits in (True, fits), (
            "two hosts share it"
        )
