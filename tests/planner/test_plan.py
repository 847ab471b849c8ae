"""Plans: the same global batch on any hardware, and the paper's step counts."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.batching.certificate import BatchCertificate
from densekit.errors import UsageError
from densekit.planner.candidates import DEFAULT_MICRO_BATCH
from densekit.planner.notes import Caution
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.recipe import Recipe

TINY = load_recipe("tiny_stage1")


def plan_of(recipe: Recipe, **request: Any) -> Plan:
    return make_plan(recipe, ExecutionRequest(**request))


def with_reference(gpus: int, per_device: int, accumulation: int) -> Recipe:
    values = TINY.model_dump(mode="json")
    values["reference"] = {
        "gpus": gpus,
        "per_device_batch_size": per_device,
        "grad_accum_steps": accumulation,
    }
    return Recipe.model_validate({**values, "global_batch_size": gpus * per_device * accumulation})


@pytest.mark.parametrize(
    ("name", "steps", "repeated"),
    [("vicuna7b_clip_stage1", 2181, 208), ("vicuna7b_clip_stage2", 5198, 46)],
)
@pytest.mark.parametrize("gpus", [1, 3, 8])
def test_paper_recipes_have_the_papers_steps(
    name: str, steps: int, repeated: int, gpus: int
) -> None:
    plan = plan_of(load_recipe(name), world_size=gpus)
    assert (plan.steps, plan.samples_repeated, plan.samples_dropped) == (steps, repeated, 0)
    assert plan.num_samples is not None
    assert plan.num_samples + repeated == steps * plan.global_batch_size


@given(
    reference=st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 4)),
    share=st.floats(0, 1),
    micro_batch_size=st.none() | st.integers(1, 40),
    samples=st.integers(1, 2000),
)
def test_micro_batches_sum_to_the_global_batch(
    reference: tuple[int, int, int], share: float, micro_batch_size: int | None, samples: int
) -> None:
    recipe = with_reference(*reference)
    total = math.prod(reference)
    gpus = 1 + round(share * (total - 1))
    request = ExecutionRequest(micro_batch_size=micro_batch_size, world_size=gpus)
    plan = make_plan(recipe, request, num_samples=samples)
    assert plan.global_batch_size == total == sum(map(sum, plan.micro_batches))
    assert len(plan.micro_batches) == gpus
    assert {len(rank) for rank in plan.micro_batches} == {plan.micro_batches_per_step}
    assert (
        max(map(max, plan.micro_batches))
        <= plan.execution.micro_batch_size
        <= (micro_batch_size or DEFAULT_MICRO_BATCH)
    )
    shares = [sum(rank) for rank in plan.micro_batches]
    assert min(shares) >= 1 and max(shares) - min(shares) <= 1
    alone = make_plan(recipe, num_samples=samples)
    assert (plan.steps, plan.samples_dropped, plan.samples_repeated) == (
        alone.steps,
        alone.samples_dropped,
        alone.samples_repeated,
    )


def test_split_of_a_step_by_hand() -> None:
    plan = plan_of(with_reference(2, 5, 1), micro_batch_size=2, world_size=3)
    assert plan.micro_batches == [[2, 2], [2, 1], [2, 1]]
    assert (plan.micro_batches_per_step, plan.execution.micro_batch_size) == (2, 2)
    assert plan_of(with_reference(2, 5, 1), world_size=3).micro_batches == [[4], [3], [3]]


def test_micro_batch_is_at_most_a_ranks_share() -> None:
    plan = plan_of(TINY, micro_batch_size=100, world_size=4)
    assert (plan.execution.micro_batch_size, plan.micro_batches) == (4, [[4]] * 4)
    assert "--micro-batch 100: a process has at most 4 samples per step, so 4" in plan.notes
    # Nobody asked for the default of 16 samples, and 4 are no more than there are.
    for size in (None, 4, 1):
        notes = plan_of(TINY, micro_batch_size=size, world_size=4).notes
        assert not any("--micro-batch" in note for note in notes)


@pytest.mark.parametrize(
    ("gpus", "nearest"),
    [
        (0, "1 (16 samples each)"),
        (-1, "1 (16 samples each)"),
        (17, "16 (1 sample each)"),
        (1000, "16 (1 sample each)"),
    ],
)
def test_impossible_process_counts_name_the_nearest(gpus: int, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(TINY, world_size=gpus)
    feeds = "tiny_stage1 feeds 16 samples per step, so it runs on 1 to 16 processes"
    assert str(caught.value) == f"--gpus {gpus}: {feeds}; use --gpus {nearest}"


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="--micro-batch 0: give a number of at least 1"):
        plan_of(TINY, micro_batch_size=0)
    with pytest.raises(UsageError, match="--offload --zero-stage 2: only ZeRO-3"):
        plan_of(TINY, cpu_offload=True, zero_stage=2)
    with pytest.raises(UsageError, match="--price -1: give what one GPU costs for an hour"):
        make_plan(TINY, price=-1)


def _about_accumulation(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "depend on its accumulation" in note]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "vicuna7b_clip_stage1",
            "2181 with accumulation 1; 2180 with accumulation 2, 4, 8, 16, 32; counted here with 1",
        ),
        (
            "vicuna7b_clip_stage2",
            "5198 with accumulation 1, 2; 5197 with accumulation 4, 8, 16; counted here with 1",
        ),
    ],
)
def test_note_when_accumulation_would_change_the_step_count(name: str, counts: str) -> None:
    (note,) = _about_accumulation(make_plan(load_recipe(name)))
    assert note == f"the official trainer's steps per epoch depend on its accumulation: {counts}"
    for override in ("optimizer.max_steps=5", "ledger.U9=fixed", "semantics=fixed"):
        assert not _about_accumulation(make_plan(load_recipe(name, [override])))
    assert not _about_accumulation(make_plan(TINY))  # 64 whole steps under every accumulation


@pytest.mark.parametrize(
    ("name", "most"), [("vicuna7b_clip_anyres_stage2", 2928), ("vicuna7b_clip_stage1", 576)]
)
def test_a_plan_says_that_an_image_alone_fills_the_sequence(name: str, most: int) -> None:
    def notes(max_length: int) -> list[str]:
        plan = make_plan(load_recipe(name, [f"data.max_length={max_length}"]))
        return [note for note in plan.notes if isinstance(note, Caution) and "image alone" in note]

    (note,) = notes(most)
    assert f"data.max_length is {most}" in note and f"{most} tokens: every answer" in note
    assert notes(most + 1) == []


def test_fixed_tail_neither_repeats_nor_drops_samples() -> None:
    recipe = load_recipe("vicuna7b_clip_stage1", ["ledger.U9=fixed", "optimizer.epochs=2"])
    plan = plan_of(recipe, world_size=3)
    assert (plan.steps, plan.samples_dropped, plan.samples_repeated) == (4362, 0, 0)
    assert "ledger U9 fixed: the last step of every epoch has 48 samples" in plan.notes
    whole = make_plan(load_recipe("tiny_stage1", ["ledger.U9=fixed"]))
    assert whole.steps == 64 and not any("U9" in note for note in whole.notes)
    accumulated = with_reference(2, 4, 2).model_copy(update={"ledger": {"U9": "fixed"}})
    assert make_plan(accumulated, num_samples=35).steps == 3
    assert make_plan(with_reference(2, 4, 2), num_samples=35).steps == 2


def test_certificate_enters_the_plan() -> None:
    certificate = BatchCertificate(
        num_samples=40,
        steps=3,
        samples_dropped=0,
        samples_repeated=8,
        sha256="ab" * 32,
        source="a dream",
    )
    plan = make_plan(TINY, num_samples=32, certificate=certificate)
    assert (plan.execution.certificate_sha256, plan.num_samples, plan.steps) == ("ab" * 32, 40, 3)
    assert "certificate: a dream" in plan.notes
    assert make_plan(TINY).execution.certificate_sha256 is None


def test_counted_samples_override_the_recipes_count() -> None:
    assert make_plan(TINY, num_samples=32).steps == 2
    assert make_plan(TINY).steps == 64
    unknown = make_plan(load_recipe("tiny_stage1", ["data.samples=null"]))
    assert (
        unknown.steps,
        unknown.num_samples,
        unknown.samples_dropped,
        unknown.samples_repeated,
    ) == (None,) * 4
    assert any("steps unknown" in note for note in unknown.notes)
    assert not any("steps unknown" in note for note in make_plan(TINY).notes)


def test_max_steps_overrides_epochs() -> None:
    assert make_plan(load_recipe("tiny_stage1", ["optimizer.max_steps=5"])).steps == 5
    assert make_plan(load_recipe("tiny_stage1", ["optimizer.epochs=3"])).steps == 192


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_planned_on_a_cpu(name: str) -> None:
    recipe = load_recipe(name)
    plan = plan_of(recipe, world_size=2)
    topology = recipe.reference
    assert topology.global_batch_size == plan.global_batch_size == recipe.global_batch_size
    assert plan.gpu == "cpu" and plan.container_image == "cpu"
    default = Execution(world_size=2)
    chosen = {"micro_batch_size", "threads", "host_ram_gib"}
    assert plan.execution.model_dump(exclude=chosen) == default.model_dump(exclude=chosen)
    assert json.loads(json.dumps(plan.as_json())) == plan.as_json()
