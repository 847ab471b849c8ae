"""The optimizer and its schedule, as the official trainer sets them up."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.optim import AdamW

from densekit.errors import UsageError
from densekit.spec.math import Optimizer

CONNECTOR = "projector"
"""The module of the model that holds all of the connector."""
TOWER = "vision_tower"


def learning_rate_factor(step: int, *, steps: int, warmup_ratio: float) -> float:
    """Multiplier of the base learning rate for optimizer step `step` (from 0): linear warm-up,
    cosine to zero.

    Warm-up takes ceil(steps * warmup_ratio) steps, so the first step of a run with warm-up uses 0
    (docs/upstream.md, Q13).
    """
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def decays(name: str, module: nn.Module) -> bool:
    """Whether weight decay applies: not to biases and norms (docs/upstream.md, Q13)."""
    is_norm = isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")
    return not (name.endswith("bias") or is_norm)


def trainable(model: nn.Module, config: Optimizer) -> Iterator[tuple[nn.Parameter, float, bool]]:
    """Every trainable parameter once, with its base learning rate and whether weight decay applies
    to it.

    Raises UsageError, behind the last one, where connector or tower have a rate of their own and
    no parameter takes it.
    """
    seen: set[int] = set()
    own = {
        module: (part, rate)
        for module, part, rate in (
            (CONNECTOR, "connector", config.connector_learning_rate),
            (TOWER, "tower", config.tower_learning_rate),
        )
        if rate is not None
    }
    idle = dict(own)
    for module_name, module in model.named_modules():
        part = module_name.split(".")[0]
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                idle.pop(part, None)
                rate = own[part][1] if part in own else config.learning_rate
                yield parameter, rate, decays(name, module)
    for part, rate in idle.values():
        raise UsageError(
            f"optimizer.{part}_learning_rate is {rate:g}, and no parameter of the {part} is "
            "trained: set it to null"
        )


def make_optimizer(model: nn.Module, config: Optimizer) -> AdamW:
    """AdamW over the trainable parameters, grouped by rate and decay; `base_lr` is kept for the
    schedule.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, rate, decay in trainable(model, config):
        members.setdefault((rate, config.weight_decay if decay else 0.0), []).append(parameter)
    groups = [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    return AdamW(groups, betas=config.betas, eps=config.eps)


def set_learning_rate(optimizer: AdamW, factor: float) -> None:
    """Give every group its base learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """L2 norm over all gradients, as a 0-dim tensor."""
    norms = [torch.linalg.vector_norm(p.grad.float()) for p in parameters if p.grad is not None]
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
