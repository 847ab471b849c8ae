"""Connector kinds: which hidden states each reads, and the size of what it hands to the projector.

The recipe validates with it, the planner counts with it and the model is built from it. A new kind
is an entry of KINDS here and a module `densekit/model/connectors/<kind>.py` that computes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import field_validator, model_validator

from densekit.spec.part import LayerIndex, Part

MAX_EXTRA = 64
"""Layers or groups of one connector: no tower has more layers."""
POOL_SIZE = 8
"""Tokens averaged into one by STI (paper, section 3.2)."""


@dataclass(frozen=True, kw_only=True)
class ConnectorKind:
    """The arithmetic of one kind, for a connector that reads n extra `layers` or n `groups`."""

    reads: Literal["layers", "groups"] | None
    """Which field lists the states it reads beside the high-level layer; None: that layer alone."""
    tokens: Callable[[int, int], int]
    """(patch tokens of an image, n) -> feature tokens of an image."""
    width: Callable[[int], int]
    """n -> channels of the dense features, in hidden sizes of the tower."""
    meaning: str


KINDS: dict[str, ConnectorKind] = {
    "none": ConnectorKind(
        reads=None,
        tokens=lambda patches, n: patches,
        width=lambda n: 1,
        meaning="the last but one state alone",
    ),
    "sti": ConnectorKind(
        reads="layers",
        tokens=lambda patches, n: patches + n * (patches // POOL_SIZE),
        width=lambda n: 1,
        meaning="more tokens: each extra layer pooled, behind the high-level layer's",
    ),
    "sci": ConnectorKind(
        reads="layers",
        tokens=lambda patches, n: patches,
        width=lambda n: 1 + n,
        meaning="more channels: the extra layers beside the high-level layer",
    ),
    "dci": ConnectorKind(
        reads="groups",
        tokens=lambda patches, n: patches,
        width=lambda n: 1 + n,
        meaning="more channels: the mean of each group of layers beside the high-level layer",
    ),
}


class Connector(Part):
    """A connector kind and the hidden_states indices it reads (the paper's layer number is index +
    1). Index 0 is the embedding output (CLIP: after its pre-layernorm).
    """

    kind: str
    """none: the last but one state alone; sti: more tokens; sci: more channels; dci: group means as
    more channels.
    """
    layers: tuple[LayerIndex, ...] = ()
    """sti, sci: the states read beside the last but one, in the order in which they are joined."""
    groups: tuple[tuple[LayerIndex, ...], ...] = ()
    """dci: the states that each group averages, in the order in which groups are joined."""

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"connector kind {kind!r} is not one of {', '.join(KINDS)}")
        return kind

    @model_validator(mode="after")
    def _kind_takes(self) -> "Connector":
        reads = KINDS[self.kind].reads
        for field in ("layers", "groups"):
            if bool(getattr(self, field)) != (reads == field):
                needs = "needs" if reads == field else "takes no"
                raise ValueError(f"kind {self.kind} {needs} `{field}`")
        if any(not group for group in self.groups):
            raise ValueError(
                "a group in `groups` is empty: list the hidden_states indices it averages"
            )
        return self

    @model_validator(mode="after")
    def _each_once(self) -> "Connector":
        for name, indices in [("layers", self.layers), *(("groups", g) for g in self.groups)]:
            twice = sorted({index for index in indices if indices.count(index) > 1})
            if twice:
                raise ValueError(
                    f"`{name}` lists hidden_states index {twice[0]} twice: list each state once"
                )
        if self.extra > MAX_EXTRA:
            raise ValueError(f"{self.extra} layers or groups; at most {MAX_EXTRA} are joined")
        return self

    @property
    def extra(self) -> int:
        """Layers, or groups of them, that are read beside the high-level layer."""
        return len(self.layers) + len(self.groups)

    def last_layer(self, tower_layers: int) -> int:
        """Highest hidden_states index read = blocks of the tower that have to run."""
        grouped = (index for group in self.groups for index in group)
        return max([high_level_layer(tower_layers), *self.layers, *grouped])

    def tokens(self, patches: int) -> int:
        """Feature tokens of an image that has `patches` patch tokens."""
        return KINDS[self.kind].tokens(patches, self.extra)

    def width(self, hidden_size: int) -> int:
        """Channels of the dense features of a tower with `hidden_size` channels."""
        return hidden_size * KINDS[self.kind].width(self.extra)

    @property
    def states_alive(self) -> int:
        """Hidden states, or running sums of them, that are alive until they are joined."""
        return 1 + self.extra


def high_level_layer(tower_layers: int) -> int:
    """hidden_states index of the layer that every kind reads and puts first: the last but one."""
    return tower_layers - 1
