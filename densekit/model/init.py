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


def initial_newline(hidden_size: int, seed: int, *, stage: int) -> Tensor:
    """The newline vector of AnyRes [H]: normal with variance 1/H, from a named generator of each
    stage (official: the same before anything is seeded, so that those of two stages are unrelated).
    """
    generator = named_generator(seed, "image_newline" if stage == 2 else "image_newline.stage1")
    drawn: Tensor = torch.randn(hidden_size, generator=generator) * hidden_size**-0.5
    return drawn


def initial_projector(projector: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights drawn as nn.Linear and the convolutions draw them (uniform, 1/sqrt(fan_in)), from a
    named generator for the projector and one for the connector's own modules; norms start at 1 and
    0.

    The official code draws them before it seeds anything (docs/upstream.md, U5).
    """
    generator = named_generator(seed, "connector")
    learned = named_generator(seed, "connector.learned")
    drawn: dict[str, Tensor] = {}
    for name, module in projector.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.LayerNorm):
            drawn |= {f"{name}.weight": torch.ones(own["weight"].shape)}
            drawn |= {f"{name}.bias": torch.zeros(own["bias"].shape)}
        elif own:
            bound = own["weight"][0].numel() ** -0.5
            source = generator if "." not in name else learned
            for kind, value in own.items():
                drawn[f"{name}.{kind}"] = (
                    torch.rand(value.shape, generator=source) * 2 - 1
                ) * bound
    return drawn
