"""Connector kinds: which hidden states each reads, and the size of what it hands to the projector.

The recipe validates with it, the planner counts with it and the model is built from it. A new kind
is an entry of KINDS here and a module `densekit/model/connectors/<kind>.py` that computes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from pydantic import Field, field_validator, model_validator

from densekit.spec.mining import Mining
from densekit.spec.part import LayerIndex, Part

MAX_EXTRA = 64
"""Layers or groups of one connector: no tower has more layers."""
POOL_SIZE = 8
"""Tokens averaged into one by STI (paper, section 3.2)."""
BLOCK = 2
"""Efficient DC takes the mean of BLOCK x BLOCK tokens (paper, section 3.3: 24 x 24 to 12 x 12)."""
CONV2D_SIZE = 3
"""Patches a side that the kernel of sci_conv2d reads (paper, Table 6)."""
Reduction = Literal["none", "before_projector", "after_projector"]


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
    grid: bool = True
    """Whether the feature tokens are the patches of an image, row by row."""
    weights: Callable[[int], int] | None = None
    """Hidden size of the tower -> weights, without the bias, of a trainable module that layers or
    groups pass; None: nothing but the projector is trained.
    """
    all_tokens: bool = True
    """Whether that module keeps every token, as the high-level layer needs that passes it."""


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
        grid=False,
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
    "sti_conv1d": ConnectorKind(
        reads="layers",
        tokens=lambda patches, n: patches + n * (patches // POOL_SIZE),
        width=lambda n: 1,
        meaning="sti with a Conv1d of kernel and stride 8 in the place of the pooling",
        grid=False,
        weights=lambda hidden: POOL_SIZE * hidden**2,
        all_tokens=False,
    ),
    "sci_conv2d": ConnectorKind(
        reads="layers",
        tokens=lambda patches, n: patches,
        width=lambda n: 1 + n,
        meaning="sci with a 3 x 3 Conv2d on each layer before they are joined",
        weights=lambda hidden: CONV2D_SIZE**2 * hidden**2,
    ),
    "dci_linear": ConnectorKind(
        reads="groups",
        tokens=lambda patches, n: patches,
        width=lambda n: 1 + n,
        meaning="dci with LayerNorm and Linear on each layer before the means",
        weights=lambda hidden: hidden**2 + 2 * hidden,
    ),
}


class Learned(Part):
    """The trainable module of a kind that has one, as far as the paper leaves it open."""

    shared: bool
    """One module for all layers or groups, or one for each."""
    high_level: bool
    """Whether the high-level layer passes it too."""
    bias: bool
    """Whether its convolution or Linear has a bias."""


class Connector(Part):
    """A connector kind and the hidden_states indices it reads (the paper's layer number is index +
    1). Index 0 is the embedding output (CLIP: after its pre-layernorm).
    """

    kind: str
    """none: the last but one state alone; sti: more tokens; sci: more channels; dci: group means as
    more channels; sti_conv1d, sci_conv2d, dci_linear: with a trainable module.
    """
    layers: tuple[LayerIndex, ...] = ()
    """sti*, sci*: the states read beside the last but one, in the order in which they are
    joined.
    """
    groups: tuple[tuple[LayerIndex, ...], ...] = ()
    """dci*: the states that each group averages, in the order in which groups are joined."""
    reduce_tokens: Reduction = Field(default="none", exclude_if=lambda value: value == "none")
    """Efficient DC: the mean of every 2 x 2 tokens, of what the projector is given or of what it
    makes. Not in the JSON when none: it came after schema 2.
    """
    learned: Learned | None = Field(default=None, exclude_if=lambda value: value is None)
    """sti_conv1d, sci_conv2d, dci_linear: their trainable module. Not in the JSON when null: it
    came after schema 2.
    """

    mining: Mining | None = Field(default=None, exclude_if=lambda value: value is None)
    """Mini-Gemini's second tower, and what patches take of it. Not in the JSON when null: it came
    after schema 2.
    """

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
    def _learns(self) -> "Connector":
        kind = KINDS[self.kind]
        if (self.learned is None) != (kind.weights is None):
            needs = "takes no" if kind.weights is None else "needs"
            raise ValueError(
                f"kind {self.kind} {needs} `learned` (shared, high_level, bias: what the paper "
                "leaves open about its trainable module)"
            )
        if self.learned and self.learned.high_level and not kind.all_tokens:
            raise ValueError(
                f"kind {self.kind} keeps every token of the high-level layer, and its module does "
                "not: set learned.high_level to false"
            )
        return self

    @model_validator(mode="after")
    def _reduces_a_grid(self) -> "Connector":
        if self.reduce_tokens != "none" and not KINDS[self.kind].grid:
            raise ValueError(
                f"reduce_tokens takes the mean of neighbouring patches, and the tokens of kind "
                f"{self.kind} are no grid of patches: use another kind, or omit reduce_tokens"
            )
        return self

    @model_validator(mode="after")
    def _mines_patches(self) -> "Connector":
        if self.mining is None:
            return self
        if not self.is_grid or self.learned is not None:
            raise ValueError(
                f"mining adds to the patches of the high-level layer, and kind {self.kind} has "
                f"{'a module of its own there' if self.is_grid else 'tokens that are none'}: use "
                "kind none, sci or dci, or omit mining"
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

    @property
    def is_grid(self) -> bool:
        """Whether the feature tokens are a square of patches, row by row."""
        return KINDS[self.kind].grid

    def check_patches(self, patches: int) -> None:
        """Raise ValueError for a tower of so many patches whose tokens cannot be reduced, or whose
        patches hold no whole windows of the high-resolution tower.
        """
        side = isqrt(patches)
        if self.mining is not None:
            self.mining.check_patches(side)
        if self.reduce_tokens != "none" and side % BLOCK:
            raise ValueError(
                f"reduce_tokens takes the mean of {BLOCK} x {BLOCK} patches, and this tower has "
                f"{side} x {side}: {side} is odd; use a tower with an even number (CLIP-L/336 has "
                "24 x 24), or omit connector.reduce_tokens"
            )

    def unreduced(self, patches: int) -> int:
        """Feature tokens of an image of `patches` patch tokens, as the kind makes them."""
        return KINDS[self.kind].tokens(patches, self.extra)

    def projected(self, patches: int) -> int:
        """Tokens of an image that pass the projector, of an image of `patches` patch tokens."""
        tokens = self.unreduced(patches)
        return tokens // BLOCK**2 if self.reduce_tokens == "before_projector" else tokens

    def tokens(self, patches: int) -> int:
        """Feature tokens of an image that has `patches` patch tokens."""
        projected = self.projected(patches)
        return projected // BLOCK**2 if self.reduce_tokens == "after_projector" else projected

    def features(self, patches: int) -> int:
        """Tokens of an image that the frozen part hands over: to the trainable module patches."""
        return patches if self.learned else self.unreduced(patches)

    def feature_width(self, hidden_size: int) -> int:
        """Channels of what the frozen part hands over: to the trainable module every state."""
        return hidden_size * (1 + self.extra) if self.learned else self.width(hidden_size)

    @property
    def passing(self) -> int:
        """Layers or groups that pass the trainable module."""
        return self.extra + self.learned.high_level if self.learned else 0

    def passed_tokens(self, patches: int) -> int:
        """Tokens that the trainable modules make of an image, all layers or groups together."""
        joined = self.unreduced(patches) * self.width(1)
        return joined - (1 + self.extra - self.passing) * patches if self.learned else 0

    @property
    def modules(self) -> int:
        """Trainable modules."""
        return min(1, self.passing) if self.learned and self.learned.shared else self.passing

    def mining_parameters(self, hidden_size: int, channels: int) -> int:
        """Parameters of patch info mining on towers of `hidden_size` and `channels` channels."""
        if self.mining is None:
            return 0
        return sum(2 * n + (n + 1) * hidden_size for n in (hidden_size, channels, channels))

    def learned_parameters(self, hidden_size: int) -> int:
        """Parameters of the trainable modules on a tower with `hidden_size` channels."""
        weights = KINDS[self.kind].weights
        if self.learned is None or weights is None:
            return 0
        return self.modules * (weights(hidden_size) + self.learned.bias * hidden_size)

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
