"""The probes compute densekit's own values: each fails when densekit, or the recording, changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.math import Math
from densekit.train import initial_state
from densekit.train.step_dataset import StepBatch
from densekit.train.trainer import Trainer
from tests.parity.sets import bump, copy_set, edit_json, failing, run

pytestmark = pytest.mark.ranks

Change = Callable[[Trainer, StepBatch, Tensor], Tensor]
CASE = "extra/probes"
COMPUTED = {
    "gradient_checkpointing": ("gradient_checkpointing_off_on", 1, 1),
    "all_masked_batch_loss": ("all_masked_batch_loss",),
    "vision_tower_requires_grad": ("vision_tower_requires_grad",),
    "text_only_projector_gradient": ("text_only_batch_projector_grad_zero_not_none", 2),
    "shapes": ("list_of_3d_images_flat", 1),
}


def test_every_probe_is_computed_and_holds(golden: Path) -> None:
    quantities = run(golden, CASE)
    assert set(quantities) == set(COMPUTED)
    assert all(quantity.ok for quantity in quantities.values())


def test_changed_recording_fails_every_probe(golden: Path, tmp_path: Path) -> None:
    root = copy_set(golden, tmp_path, "extra")

    def change(record: dict) -> None:
        for keys in COMPUTED.values():
            bump(record, keys)
        record["all_masked_batch_loss"] = 1.5

    edit_json(root / "extra" / "probes.json", change)
    assert set(failing(root, CASE)) == set(COMPUTED)


def _nudge_when_checkpointing(trainer: Trainer, _: StepBatch, loss: Tensor) -> Tensor:
    if trainer.engine.execution.activation_checkpointing:
        gradient = list(trainer.engine.trainable.values())[-1].grad
        assert gradient is not None
        gradient.view(-1)[0] += 1e-6
    return loss


def _mean_over_labels(_: Trainer, batch: StepBatch, loss: Tensor) -> Tensor:
    return loss * batch.label_positions / torch.tensor(batch.label_positions)


def _without_connector(trainer: Trainer, _: StepBatch, loss: Tensor) -> Tensor:
    trainer.engine.model.projector.zero_grad(set_to_none=True)
    return loss


def _leak_into_connector(trainer: Trainer, _: StepBatch, loss: Tensor) -> Tensor:
    for parameter in trainer.engine.model.projector.parameters():
        assert parameter.grad is not None
        parameter.grad += 1e-9
    return loss


@pytest.mark.parametrize(
    "changes",
    [
        {
            "gradient_checkpointing": _nudge_when_checkpointing,
            "all_masked_batch_loss": _mean_over_labels,
            "text_only_projector_gradient": _without_connector,
        },
        {"text_only_projector_gradient": _leak_into_connector},
    ],
)
def test_changed_step_fails_its_probe(
    golden: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Change]
) -> None:
    accumulate = Trainer.accumulate

    def changed(self: Trainer, batch: StepBatch) -> Tensor:
        loss = accumulate(self, batch)
        for change in changes.values():
            loss = change(self, batch, loss)
        return loss

    monkeypatch.setattr(Trainer, "accumulate", changed)
    failures = failing(golden, CASE)
    assert set(failures) == set(changes)
    if len(changes) > 1:
        message = failures["text_only_projector_gradient"]
        assert "0.weight, 0.bias, 2.weight, 2.bias; the official code has zeros" in message


def test_trainable_tower_fails_its_probe(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_trainable = initial_state.set_trainable

    def changed(model: DenseConnectorForConditionalGeneration, math: Math) -> None:
        set_trainable(model, math)
        next(model.vision_tower.parameters()).requires_grad_(True)

    monkeypatch.setattr(initial_state, "set_trainable", changed)
    assert set(failing(golden, CASE)) == {"vision_tower_requires_grad"}


def test_activation_checkpointing_that_is_not_switched_on_fails(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gradient_checkpointing_enable", "activation_checkpointing_enable"):
        monkeypatch.setattr(PreTrainedModel, name, lambda *_, **__: None, raising=False)
    message = failing(golden, CASE)["case"]
    assert message.startswith("activation checkpointing on") and message.endswith("1, expected 2")
