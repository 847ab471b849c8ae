"""Step counts: the paper's figures, and the closed form against a walk through the rounds."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.batching.counts import count_steps, official_step_counts
from densekit.errors import DataError, UsageError
from densekit.spec.math import Reference
from densekit.spec.types import Semantics

STAGE_1 = Reference(gpus=8, per_device_batch_size=32, grad_accum_steps=1)
STAGE_2 = Reference(gpus=8, per_device_batch_size=16, grad_accum_steps=1)


def test_the_papers_steps_under_every_accumulation() -> None:
    assert official_step_counts(558_128, STAGE_1) == {
        1: 2181,
        2: 2180,
        4: 2180,
        8: 2180,
        16: 2180,
        32: 2180,
    }
    assert official_step_counts(665_298, STAGE_2) == {1: 5198, 2: 5198, 4: 5197, 8: 5197, 16: 5197}


def test_accumulation_varies_around_the_reference_too() -> None:
    topology = Reference(gpus=3, per_device_batch_size=3, grad_accum_steps=2)
    assert official_step_counts(100, topology) == {1: 6, 2: 6, 3: 5, 6: 5}


@pytest.mark.parametrize(
    ("samples", "topology", "accumulation", "steps", "dropped"),
    [(558_128, STAGE_1, 2, 2180, 48), (665_298, STAGE_2, 4, 5197, 82)],
)
def test_with_accumulation_the_official_trainer_drops_the_rest(
    samples: int, topology: Reference, accumulation: int, steps: int, dropped: int
) -> None:
    accumulated = Reference(
        gpus=8,
        per_device_batch_size=topology.per_device_batch_size // accumulation,
        grad_accum_steps=accumulation,
    )
    counts = count_steps(samples, topology=accumulated, epochs=1)
    assert (counts.steps, counts.samples_dropped, counts.samples_repeated) == (steps, dropped, 0)


@pytest.mark.parametrize(
    ("samples", "topology", "steps"), [(558_128, STAGE_1, 2181), (665_298, STAGE_2, 5198)]
)
def test_a_fixed_tail_takes_every_sample_once_whatever_the_accumulation(
    samples: int, topology: Reference, steps: int
) -> None:
    for accumulation in (1, 4):
        variant = Reference(
            gpus=8,
            per_device_batch_size=topology.per_device_batch_size // accumulation,
            grad_accum_steps=accumulation,
        )
        counts = count_steps(samples, topology=variant, epochs=1, tail="fixed")
        assert (counts.steps, counts.samples_dropped, counts.samples_repeated) == (steps, 0, 0)


def _walk(samples: int, topology: Reference, steps: int) -> tuple[int, int]:
    """(fresh, repeated) samples of the first `steps` official updates, round by round."""
    round_size = topology.gpus * topology.per_device_batch_size
    rounds = math.ceil(samples / round_size)
    fresh = repeated = seen = done = 0
    while done < steps:
        number = seen % rounds
        seen += 1
        new = min(round_size, samples - number * round_size)
        fresh += new
        repeated += round_size - new if topology.gpus > 1 else 0
        ends_short_epoch = rounds <= topology.grad_accum_steps and number == rounds - 1
        done += seen % topology.grad_accum_steps == 0 or ends_short_epoch
    return fresh, repeated


@settings(max_examples=300)
@given(
    samples=st.integers(1, 80),
    world=st.integers(1, 3),
    batch=st.integers(1, 4),
    accumulation=st.integers(1, 12),
    epochs=st.integers(1, 40),
)
def test_the_closed_form_is_the_walk(
    samples: int, world: int, batch: int, accumulation: int, epochs: int
) -> None:
    topology = Reference(gpus=world, per_device_batch_size=batch, grad_accum_steps=accumulation)
    counts = count_steps(samples, topology=topology, epochs=epochs)
    fresh, repeated = _walk(samples, topology, counts.steps)
    assert counts.samples_repeated == repeated
    assert counts.samples_dropped == max(epochs * samples - fresh, 0)
    by_steps = count_steps(samples, topology=topology, max_steps=counts.steps)
    assert (by_steps.samples_repeated, by_steps.samples_dropped) == (repeated, 0)


@pytest.mark.parametrize("accumulation", [1, 6, 1000])
@pytest.mark.parametrize("tail", ["faithful", "fixed"])
def test_absurd_lengths_are_counted_at_once(accumulation: int, tail: Semantics) -> None:
    topology = Reference(gpus=2, per_device_batch_size=4, grad_accum_steps=accumulation)
    counts = count_steps(100, topology=topology, epochs=10**30, tail=tail)
    assert counts.steps == counts.updates_per_epoch * 10**30
    assert count_steps(100, topology=topology, max_steps=10**30, tail=tail).steps == 10**30


def test_no_length_two_lengths_and_no_samples_are_refused() -> None:
    topology = Reference(gpus=1, per_device_batch_size=1, grad_accum_steps=1)
    with pytest.raises(UsageError, match="exactly one"):
        count_steps(4, topology=topology)
    with pytest.raises(UsageError, match="exactly one"):
        count_steps(4, topology=topology, epochs=1, max_steps=1)
    with pytest.raises(UsageError, match="no step at all"):
        count_steps(4, topology=topology, max_steps=0)
    with pytest.raises(UsageError, match="no step at all"):
        count_steps(4, topology=topology, epochs=0)
    with pytest.raises(DataError, match="nothing to train on"):
        count_steps(0, topology=topology, epochs=1)
