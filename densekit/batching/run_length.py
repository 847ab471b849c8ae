"""How long one run trains, without the order of its samples."""

from dataclasses import dataclass

from densekit.batching.counts import StepCounts, count_steps
from densekit.spec.math import Math
from densekit.spec.types import Semantics


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """How long a run trains: the arguments of `iterate_steps` and its relatives."""

    epochs: int | None
    """None where `max_steps` is given."""
    max_steps: int | None
    tail: Semantics
    """What the end of an epoch does (docs/upstream.md, U9)."""

    @classmethod
    def of(cls, math: Math) -> "RunLength":
        """The length that the math asks for."""
        steps = math.optimizer.max_steps
        epochs = None if steps else math.optimizer.epochs
        return cls(epochs=epochs, max_steps=steps, tail=math.ledger["U9"])


def count_run(math: Math, num_samples: int) -> StepCounts:
    """Steps of a run over `num_samples` entries, and the samples they drop or repeat; errors of
    `count_steps`.
    """
    length = RunLength.of(math)
    return count_steps(
        num_samples,
        topology=math.reference,
        epochs=length.epochs,
        max_steps=length.max_steps,
        tail=length.tail,
    )
