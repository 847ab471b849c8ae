"""A run that cannot teach is refused before step 1, one that did not fails after its last."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from densekit.batching.steps import Step
from densekit.errors import DataError
from densekit.spec.math import Optimizer
from densekit.train.shards import Shard
from densekit.train.teaches import check_labels, check_schedule, check_taught, schedule_note


@pytest.mark.parametrize(
    ("steps", "changes", "refused"),
    [
        (1, {}, True),  # the first step of a warm-up has rate 0
        (2, {}, False),
        (1, {"warmup_ratio": 0.0}, False),
        (1, {"max_steps": 1}, False),  # asked for: the loss of one step
    ],
)
def test_a_schedule_whose_every_step_has_rate_0_is_refused(
    steps: int, changes: dict[str, Any], refused: bool
) -> None:
    optimizer = Optimizer(learning_rate=0.1, **changes)
    if not refused:
        return check_schedule(optimizer, steps)
    with pytest.raises(DataError, match=r"rate is 0 in every step .*optimizer.warmup_ratio: 0"):
        check_schedule(optimizer, steps)


class Reader:
    """Samples of which `labelled` have a label."""

    layout = SimpleNamespace(max_tokens=16)
    encoder = SimpleNamespace(max_length=16)

    def __init__(self, labelled: set[int]) -> None:
        self.labelled, self.read = labelled, 0

    def sequence(self, index: int) -> tuple[Any, Any]:
        self.read += 1
        labels = int(index in self.labelled)
        return SimpleNamespace(label_count=labels), SimpleNamespace(notes=("truncated",))


def dataset(samples: int, labelled: set[int]) -> Any:
    steps = [
        SimpleNamespace(samples=[(index, 0) for index in range(first, min(first + 8, samples))])
        for first in range(0, samples, 8)
    ]
    assert Step.samples  # what stands in for it here
    return SimpleNamespace(steps=steps, reader=Reader(labelled))


@pytest.mark.parametrize("samples", [16, 127, 128, 300])
def test_samples_without_a_label_are_refused(samples: int) -> None:
    with pytest.raises(DataError) as caught:
        check_labels(dataset(samples, set()))
    message = str(caught.value)
    assert f"{samples} of the {samples} samples of this run have no label (truncated" in message
    assert "would teach nothing. data.max_length is 16, an image alone has 16 tokens" in message
    assert f"(truncated {samples})" in message and "raise data.max_length" in message


def test_a_small_run_needs_labels_in_half_of_its_samples() -> None:
    check_labels(dataset(16, set(range(8))))
    with pytest.raises(DataError, match=r"9 of the 16 samples .* next to nothing"):
        check_labels(dataset(16, set(range(7))))


def test_a_long_run_is_read_up_to_its_first_label() -> None:
    """The loop counts the rest, and has a limit of its own."""
    long = dataset(300, {200})
    check_labels(long)
    assert long.reader.read == 201


@dataclass
class Made:
    """What check_taught looks at: one trained parameter of two weights."""

    weight: Tensor
    optimizer_steps: int = 3
    optimizer_config: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=0.1))
    dataset: range = range(3)

    @property
    def engine(self) -> Any:
        zero = torch.zeros(2)
        shard = Shard(
            name="projector.0.weight",
            numel=2,
            start=0,
            weight=self.weight,
            exp_avg=zero,
            exp_avg_sq=zero,
        )
        return SimpleNamespace(shards=lambda: iter([shard]), trainable={shard.name: None})


INIT = {"projector.0.weight": torch.tensor([[1.0, 2.0]])}


def test_weights_that_changed_and_are_finite_pass() -> None:
    check_taught(Made(torch.tensor([1.0, 2.5])), INIT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Made(torch.tensor([1.0, float("inf")])), "not finite after the last step: projector.0"),
        (Made(torch.tensor([float("nan"), 1.0])), "lower optimizer.learning_rate or optimizer.we"),
        (Made(torch.tensor([1.0, 2.5]), optimizer_steps=0), "none of the 3 steps changed a weight"),
        (Made(torch.tensor([1.0, 2.0])), "every trained weight is what it was at step 0"),
    ],
)
def test_a_run_that_taught_nothing_fails(made: Made, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_taught(made, INIT)  # type: ignore[arg-type]


def test_a_first_step_that_was_asked_for_may_leave_the_weights_as_they_are() -> None:
    config = Optimizer(learning_rate=0.1, max_steps=1)
    one = Made(torch.tensor([1.0, 2.0]), optimizer_config=config, dataset=range(1))
    check_taught(one, INIT)  # type: ignore[arg-type]
    (line,) = schedule_note(config, 1)
    assert "rate was 0 in every step" in line and schedule_note(config, 2) == []
