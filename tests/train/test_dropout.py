"""Dropout draws anew in every step and micro-batch, and the same again when a run is resumed."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.train.trainer import Trainer
from tests.support.models import micro_batch


class DrawingEngine:
    """Draws what dropout would, and computes nothing."""

    device = torch.device("cpu")
    accelerator = SimpleNamespace(reduce=lambda loss, reduction: loss)

    def __init__(self) -> None:
        self.masks: list[Tensor] = []

    def forward_backward(self, *_: Any, last: bool) -> Tensor:
        self.masks.append(torch.rand(32) < 0.5)
        return torch.zeros(())


def masks(steps: range, places: tuple[tuple[int, ...], ...] = ((0, 1), (2, 3))) -> list[Tensor]:
    """Of every micro-batch of these steps, which hold samples of these places."""
    engine: Any = DrawingEngine()
    processor = SimpleNamespace(lookup_table=lambda: np.zeros((256, 3), dtype=np.float32))
    dataset: Any = SimpleNamespace(reader=SimpleNamespace(processor=processor))
    trainer = Trainer(engine, dataset, None, seed=1)  # type: ignore[arg-type]
    for index in steps:
        batches = [replace(micro_batch([3, 4]), positions=place) for place in places]
        batch: Any = SimpleNamespace(index=index, micro_batches=batches)
        trainer.accumulate(batch)
    return engine.masks


def test_steps_and_micro_batches_drop_other_places() -> None:
    found = masks(range(3))
    assert len({tuple(mask.tolist()) for mask in found}) == len(found) == 6


def test_a_resumed_run_drops_the_same_places() -> None:
    assert torch.equal(torch.stack(masks(range(3))[4:]), torch.stack(masks(range(2, 3))))
