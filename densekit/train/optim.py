"""The optimiser and its schedule, as the official trainer sets them up."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW


def learning_rate_factor(step: int, *, steps: int, warmup_ratio: float) -> float:
    """Multiplier of the base learning rate for optimiser step `step` (from 0): linear warm-up, cosine to zero.

    Warm-up takes ceil(steps * warmup_ratio) steps, so the first step of a run with warm-up uses 0
    (recorded quirk 13).
    """
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def decays(name: str, module: nn.Module) -> bool:
    """Whether weight decay applies: not to biases and normalisation layers (recorded quirk 13)."""
    is_norm = isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")
    return not (name.endswith("bias") or is_norm)


def parameter_groups(
    model: nn.Module, *, learning_rate: float, connector_learning_rate: float | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters in groups by learning rate and weight decay; `base_lr` is kept for the schedule."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            own_rate = connector_learning_rate is not None and module_name.startswith("projector")
            rate = connector_learning_rate if own_rate and connector_learning_rate else learning_rate
            decay = weight_decay if decays(name, module) else 0.0
            members = groups.setdefault((rate, decay), [])
            if not any(parameter is member for member in members):
                members.append(parameter)
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def make_optimizer(model: nn.Module, settings: dict[str, Any]) -> AdamW:
    """AdamW over the trainable parameters; `settings` is the recipe's `optimizer` section."""
    groups = parameter_groups(
        model,
        learning_rate=settings["learning_rate"],
        connector_learning_rate=settings["connector_learning_rate"],
        weight_decay=settings["weight_decay"],
    )
    return AdamW(groups, betas=tuple(settings["betas"]), eps=settings["eps"])


def set_learning_rate(optimizer: AdamW, factor: float) -> None:
    """Give every group its base learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """L2 norm over all gradients, as a 0-dim tensor."""
    norms = [torch.linalg.vector_norm(p.grad.float()) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms))
