"""Optimizer groups and schedule."""

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from densekit.errors import UsageError
from densekit.spec.math import Optimizer
from densekit.train.optim import (
    gradient_norm,
    learning_rate_factor,
    make_optimizer,
    set_learning_rate,
)

OPTIMIZER = Optimizer(
    learning_rate=1e-3, connector_learning_rate=5e-4, weight_decay=0.1, betas=(0.9, 0.99)
)


class Model(nn.Module):
    """A projector, a norm and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.projector = nn.Linear(3, 4)
        self.norm = LlamaRMSNorm(4)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_connector_rate_that_no_parameter_takes_is_refused() -> None:
    model = Model()
    model.projector.requires_grad_(False)
    with pytest.raises(UsageError, match=r"connector_learning_rate is 0\.0005, and no parameter"):
        make_optimizer(model, OPTIMIZER)
    make_optimizer(model, OPTIMIZER.model_copy(update={"connector_learning_rate": None}))


@pytest.mark.parametrize(("steps", "ratio"), [(20, 0.03), (2181, 0.03), (7, 0.5), (5, 0.0)])
def test_the_schedule_is_the_official_one(steps: int, ratio: float) -> None:
    import math

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.ceil(steps * ratio), steps)
    for step in range(steps):
        assert learning_rate_factor(step, steps=steps, warmup_ratio=ratio) == pytest.approx(
            scheduler.get_last_lr()[0], abs=1e-15
        )
        optimizer.step()
        scheduler.step()
    if ratio:
        assert learning_rate_factor(0, steps=steps, warmup_ratio=ratio) == 0.0


def test_groups_by_rate_and_decay() -> None:
    model = Model()
    optimizer = make_optimizer(model, OPTIMIZER)
    found = {
        (g["base_lr"], g["weight_decay"]): sum(p.numel() for p in g["params"])
        for g in optimizer.param_groups
    }
    assert found == {(5e-4, 0.1): 12, (5e-4, 0.0): 4, (1e-3, 0.0): 4 + 2, (1e-3, 0.1): 8}
    set_learning_rate(optimizer, 0.5)
    assert {g["lr"] for g in optimizer.param_groups} == {2.5e-4, 5e-4}


def test_a_trained_tower_has_a_rate_of_its_own() -> None:
    model = Model()
    model.vision_tower = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
    config = OPTIMIZER.model_copy(update={"tower_learning_rate": 2e-6})
    groups = {
        (g["base_lr"], g["weight_decay"]): sum(p.numel() for p in g["params"])
        for g in make_optimizer(model, config).param_groups
    }
    assert (groups[2e-6, 0.1], groups[2e-6, 0.0]) == (6, 3 + 3 + 2)
    model.vision_tower.requires_grad_(False)
    with pytest.raises(UsageError, match="tower_learning_rate is 2e-06, and no parameter of the t"):
        make_optimizer(model, config)


def test_gradient_norm_is_over_all_parameters() -> None:
    model = Model()
    (model.head(model.norm(model.projector(torch.ones(1, 3)))).sum()).backward()
    together = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert gradient_norm(model.parameters()) == pytest.approx(together.norm().item())
