"""The Dense Connector: which hidden states of the vision tower reach the projector, and how they
are joined.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("none", "sti", "sci", "dci")
POOL_SIZE = 8  # tokens averaged into one by STI (paper section 3.2; recorded quirk 10: the remainder is dropped)


@dataclass(frozen=True, kw_only=True)
class ConnectorSpec:
    """A connector kind with the hidden_states indices it reads.

    Indices count from 0 = the embedding output (CLIP: after its pre-layernorm); the paper's layer
    number is index + 1. `feature_layer` is the high-level layer that every kind includes and puts
    first.
    """

    kind: str
    feature_layer: int
    layers: tuple[int, ...] = ()
    """sti, sci: the additional hidden_states indices, in concatenation order."""
    groups: tuple[tuple[int, ...], ...] = ()
    """dci: the hidden_states indices averaged into each group, in concatenation order."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"connector kind {self.kind!r} is not one of {', '.join(KINDS)}")
        wants_layers, wants_groups = self.kind in ("sti", "sci"), self.kind == "dci"
        if wants_layers != bool(self.layers) or wants_groups != bool(self.groups):
            expected = (
                "layers"
                if wants_layers
                else "groups"
                if wants_groups
                else "neither layers nor groups"
            )
            raise ValueError(f"connector kind {self.kind!r} takes {expected}")
        if any(not group for group in self.groups):
            raise ValueError(
                "a connector group is empty: list the hidden_states indices it averages"
            )
        indices = [*self.layers, *(i for group in self.groups for i in group), self.feature_layer]
        if min(indices) < 0:
            raise ValueError(f"hidden_states indices count from 0: {min(indices)} is negative")

    @property
    def last_layer(self) -> int:
        """Highest hidden_states index read = number of tower blocks that have to run."""
        return max([self.feature_layer, *self.layers, *(i for group in self.groups for i in group)])

    def num_tokens(self, patches: int) -> int:
        """Feature tokens of one image that has `patches` patch tokens."""
        return (
            patches + len(self.layers) * (patches // POOL_SIZE) if self.kind == "sti" else patches
        )

    def width(self, hidden_size: int) -> int:
        """Channels of the dense features of a tower with `hidden_size` channels."""
        if self.kind == "sci":
            return hidden_size * (1 + len(self.layers))
        return hidden_size * (1 + len(self.groups)) if self.kind == "dci" else hidden_size


def dense_features(hidden_states: Iterable[Tensor], spec: ConnectorSpec) -> Tensor:
    """Join hidden states [I, P, D] (hidden_states[0], [1], ... without CLS) into dense features [I,
    N, C].

    Consumes the iterable one state at a time and keeps running sums, so that no more than the
    states a kind concatenates are alive (arXiv 2405.13800 eq. 1-4; order as in the official code:
    the high-level layer first). N = spec.num_tokens(P), C = spec.width(D).
    """
    kept: dict[int, Tensor] = {}
    sums: list[Tensor | None] = [None] * len(spec.groups)
    for index, state in enumerate(hidden_states):
        if index == spec.feature_layer or index in spec.layers:
            kept[index] = state
        for number, group in enumerate(spec.groups):
            if index in group:
                running = sums[number]
                sums[number] = state if running is None else running + state
    high = kept[spec.feature_layer]
    if spec.kind == "sti":
        pooled = [_pool_tokens(kept[index]) for index in spec.layers]
        return torch.cat([high, *pooled], dim=1)
    if spec.kind == "sci":
        return torch.cat([high, *(kept[index] for index in spec.layers)], dim=-1)
    if spec.kind == "dci":
        means = [
            total / len(group) for total, group in zip(_present(sums), spec.groups, strict=True)
        ]
        return torch.cat([high, *means], dim=-1)
    return high


def _present(sums: Sequence[Tensor | None]) -> list[Tensor]:
    assert all(total is not None for total in sums), "the tower ended before a group was complete"
    return [total for total in sums if total is not None]


def _pool_tokens(state: Tensor) -> Tensor:
    return F.avg_pool1d(state.transpose(1, 2), POOL_SIZE, POOL_SIZE).transpose(1, 2)


class Projector(nn.Sequential):
    """mlp2x_gelu: Linear(C -> H), GELU, Linear(H -> H), with the official parameter names 0.* and
    2.*.
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
