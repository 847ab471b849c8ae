"""The loss is a weighted sum of cross-entropies, worked by hand."""

import math

import pytest
import torch

from densekit.model.loss import weighted_cross_entropy


def test_each_position_counts_with_its_own_weight() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    loss = weighted_cross_entropy(logits, torch.tensor([0, 0]), torch.tensor([0.5, 3.0]))
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 3 * math.log(4 / 3))


def test_half_precision_logits_give_a_loss_in_single_precision() -> None:
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.bfloat16)
    loss = weighted_cross_entropy(logits, torch.tensor([1]), torch.ones(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2))


def test_no_label_position_at_all_is_a_loss_of_zero() -> None:
    loss = weighted_cross_entropy(
        torch.empty(0, 4), torch.empty(0, dtype=torch.int64), torch.empty(0)
    )
    assert loss.shape == () and loss.item() == 0
