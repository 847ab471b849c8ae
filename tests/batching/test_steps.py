"""Step counts and contents as the official trainer has them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.batching.counts import StepCounts, count_steps
from densekit.batching.order import OfficialOrder
from densekit.batching.steps import Step, iterate_steps
from densekit.spec.math import Reference
from densekit.spec.types import Semantics


def _run(
    samples: int,
    world: int,
    batch: int,
    accumulation: int = 1,
    *,
    tail: Semantics = "faithful",
    **length: int,
) -> tuple[StepCounts, list[Step], OfficialOrder]:
    topology = Reference(gpus=world, per_device_batch_size=batch, grad_accum_steps=accumulation)
    order = OfficialOrder(
        modality_lengths=np.ones(samples, dtype=np.int64),
        topology=topology,
        seed=1,
        group_by_modality=False,
    )
    counts = count_steps(samples, topology=topology, tail=tail, **length)
    return counts, list(iterate_steps(order, tail=tail, **length)), order


def _samples(step: Step) -> list[int]:
    return [sample for sample, _ in step.samples]


@pytest.mark.parametrize(
    ("samples", "batch", "steps", "new", "repeated"),
    [(558_128, 32, 2181, 48, 208), (665_298, 16, 5198, 82, 46)],
)
def test_the_two_stages_of_the_paper(
    samples: int, batch: int, steps: int, new: int, repeated: int
) -> None:
    counts, run, order = _run(samples, 8, batch, epochs=1)
    assert counts == StepCounts(
        rounds_per_epoch=steps,
        updates_per_epoch=steps,
        steps=steps,
        samples_dropped=0,
        samples_repeated=repeated,
    )
    assert len(run) == steps
    last = _samples(run[-1])
    assert last == order.epoch(0)[-new:].tolist() + order.epoch(0)[:repeated].tolist()
    assert len(run[-1].groups) == 8


def test_one_process_has_a_short_last_batch() -> None:
    counts, run, order = _run(7, 1, 3, epochs=2)
    assert [len(_samples(step)) for step in run] == [3, 3, 1, 3, 3, 1]
    assert _samples(run[3]) == order.epoch(1)[:3].tolist()
    assert (counts.samples_repeated, counts.samples_dropped) == (0, 0)


def test_a_data_set_smaller_than_a_round_is_repeated_in_turn() -> None:
    counts, run, order = _run(3, 4, 2, epochs=1)
    first = order.epoch(0).tolist()
    assert _samples(run[0]) == (first * 3)[:8]
    assert counts.samples_repeated == 5


def test_rounds_left_over_by_an_epoch_open_the_next_one() -> None:
    counts, run, order = _run(10, 1, 2, accumulation=2, epochs=2)
    first, second = order.epoch(0).tolist(), order.epoch(1).tolist()
    assert [_samples(step) for step in run] == [
        first[:4],
        first[4:8],
        first[8:] + second[:2],
        second[2:6],
    ]
    assert (counts.updates_per_epoch, counts.steps, counts.samples_dropped) == (2, 4, 4)


def test_an_epoch_shorter_than_the_accumulation_still_steps() -> None:
    counts, run, _ = _run(6, 1, 2, accumulation=4, epochs=2)
    # Rounds are counted across epochs: the fourth one, first of epoch 1, is due by the count alone.
    assert [len(step.groups) for step in run] == [3, 1]
    assert (counts.updates_per_epoch, counts.steps, counts.samples_dropped) == (1, 2, 4)


def test_max_steps_overrides_the_epochs_and_fractions_round_up() -> None:
    assert _run(16, 1, 2, max_steps=20)[0].steps == 20
    topology = Reference(gpus=1, per_device_batch_size=2, grad_accum_steps=1)
    assert count_steps(10, topology=topology, epochs=0.5).steps == 3


@settings(max_examples=150)
@given(
    samples=st.integers(1, 60),
    world=st.integers(1, 4),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 7),
    epochs=st.integers(1, 3),
)
def test_the_counts_describe_what_is_yielded(
    samples: int, world: int, batch: int, accumulation: int, epochs: int
) -> None:
    counts, run, order = _run(samples, world, batch, accumulation, epochs=epochs)
    rounds = math.ceil(samples / (world * batch))
    assert counts.rounds_per_epoch == rounds
    assert len(run) == counts.steps == epochs * max(rounds // accumulation, 1)
    assert [step.index for step in run] == list(range(len(run)))
    fed = [sample for step in run for sample in _samples(step)]
    assert len(fed) == samples * epochs - counts.samples_dropped + counts.samples_repeated
    # An epoch shorter than the accumulation fills fewer groups, but the loss divides by all of
    # them.
    assert {step.num_groups for step in run} == {accumulation * world}
    if rounds >= accumulation:
        assert {len(step.groups) for step in run} == {accumulation * world}
    if world == 1:
        official = np.concatenate([order.epoch(k) for k in range(epochs)]).tolist()
        assert fed == official[: len(fed)]
    else:
        assert {len(group) for step in run for group in step.groups} == {batch}


def test_samples_are_flattened_with_their_groups() -> None:
    step = Step(index=0, groups=[np.array([7, 3]), np.array([5]), np.array([3])], num_groups=4)
    assert step.samples == [(7, 0), (3, 0), (5, 1), (3, 2)]
    assert {type(number) for pair in step.samples for number in pair} == {int}


@settings(max_examples=150)
@given(
    samples=st.integers(1, 60),
    world=st.integers(1, 4),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    epochs=st.integers(1, 3),
)
def test_a_fixed_tail_drops_nothing_and_repeats_nothing(
    samples: int, world: int, batch: int, accumulation: int, epochs: int
) -> None:
    counts, run, order = _run(samples, world, batch, accumulation, tail="fixed", epochs=epochs)
    total = world * batch * accumulation
    updates = math.ceil(samples / total)
    assert (counts.updates_per_epoch, counts.steps, len(run)) == (
        updates,
        epochs * updates,
        epochs * updates,
    )
    assert (counts.samples_dropped, counts.samples_repeated) == (0, 0)
    for epoch in range(epochs):
        steps = run[epoch * updates : (epoch + 1) * updates]
        assert [sample for step in steps for sample in _samples(step)] == order.epoch(
            epoch
        ).tolist()
        assert {len(_samples(step)) for step in steps[:-1]} <= {total}
        for step in steps:
            sizes = [len(group) for group in step.groups]
            assert set(sizes[:-1]) <= {batch} and 1 <= sizes[-1] <= batch
            assert step.num_groups == len(sizes) == math.ceil(len(_samples(step)) / batch)


def test_a_fixed_last_batch_is_weighed_by_its_own_groups() -> None:
    _, run, order = _run(21, 2, 4, 2, tail="fixed", epochs=1)
    first, last = run
    assert (first.num_groups, [len(group) for group in first.groups]) == (4, [4] * 4)
    assert (last.num_groups, [len(group) for group in last.groups]) == (2, [4, 1])
    assert _samples(last) == order.epoch(0)[16:].tolist()


def test_a_fixed_tail_goes_on_into_the_next_epoch_until_max_steps() -> None:
    counts, run, order = _run(10, 1, 4, tail="fixed", max_steps=5)
    assert [len(_samples(step)) for step in run] == [4, 4, 2, 4, 4]
    assert _samples(run[3]) == order.epoch(1)[:4].tolist()
    assert (counts.steps, counts.samples_dropped, counts.samples_repeated) == (5, 0, 0)


def test_both_tails_agree_where_an_epoch_is_whole() -> None:
    for accumulation in (1, 2):
        runs = [
            _run(32, 2, 4, accumulation, tail=tail, epochs=2)[1] for tail in ("faithful", "fixed")
        ]
        assert [step.samples for step in runs[0]] == [step.samples for step in runs[1]]
        assert [step.num_groups for step in runs[0]] == [step.num_groups for step in runs[1]]
