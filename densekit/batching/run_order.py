"""What one run feeds: the official order of its samples, its steps and its certificate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from densekit.batching.certificate import BatchCertificate, certify
from densekit.batching.counts import StepCounts, count_steps
from densekit.batching.order import OfficialOrder
from densekit.batching.steps import Step, iterate_steps
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


class RunOrder:
    """The order of one run over one annotation file."""

    def __init__(self, math: Math, modality_lengths: npt.NDArray[np.int64]) -> None:
        """`modality_lengths`, shape (samples,): words per sample, negative for text-only ones."""
        self.length = RunLength.of(math)
        self._order = OfficialOrder(
            modality_lengths=modality_lengths,
            topology=math.reference,
            seed=math.seed,
            group_by_modality=math.data.group_by_modality_length,
        )

    def steps(self) -> list[Step]:
        """Every optimizer step."""
        length = self.length
        return list(
            iterate_steps(
                self._order, epochs=length.epochs, max_steps=length.max_steps, tail=length.tail
            )
        )

    def certificate(self, sample_ids: Sequence[str]) -> BatchCertificate:
        """The certificate of what the steps feed; `sample_ids[i]` is the id of sample i."""
        length = self.length
        return certify(
            self._order,
            sample_ids,
            epochs=length.epochs,
            max_steps=length.max_steps,
            tail=length.tail,
        )
