"""Initial weights and named randomness: every draw follows from a seed and a name, on the CPU."""

import hashlib

import torch
from torch import Tensor, nn


def named_seed(seed: int, name: str) -> int:
    """The seed of one named use of randomness (63 bits of a hash)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named use of randomness, independent of every other use."""
    return torch.Generator().manual_seed(named_seed(seed, name))


def initial_projector(projector: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights drawn as nn.Linear draws them (uniform, 1/sqrt(fan_in)), from a named generator.

    The official code draws them before it seeds anything (docs/upstream.md, U5).
    """
    generator = named_generator(seed, "connector")
    drawn = {}
    for name, module in projector.named_children():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for kind, shape in (("weight", module.weight.shape), ("bias", module.bias.shape)):
                drawn[f"{name}.{kind}"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return drawn
