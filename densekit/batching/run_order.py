"""What one run feeds: the official order of its samples, its steps and its certificate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from densekit.batching.certificate import BatchCertificate, certify
from densekit.batching.counts import StepCounts, count_steps
from densekit.batching.order import OfficialOrder, ReferenceTopology
from densekit.batching.steps import Step, iterate_steps
from densekit.spec.math import Math


def run_length(math: Math) -> dict[str, Any]:
    """How long a run trains, as the arguments epochs, max_steps and tail of `iterate_steps` and its
    relatives.
    """
    optimizer = math.optimizer
    epochs = None if optimizer.max_steps else optimizer.epochs
    return {"epochs": epochs, "max_steps": optimizer.max_steps, "tail": math.ledger["U9"]}


def count_run(math: Math, num_samples: int) -> StepCounts:
    """Steps of a run over `num_samples` entries, and the samples they drop or repeat; errors of
    `count_steps`.
    """
    topology = ReferenceTopology.of(math.reference)
    return count_steps(num_samples, topology=topology, **run_length(math))


class RunOrder:
    """The order of one run over one annotation file."""

    def __init__(self, math: Math, modality_lengths: npt.NDArray[np.int64]) -> None:
        """`modality_lengths`, shape (samples,): words per sample, negative for text-only ones."""
        self.length = run_length(math)
        self._order = OfficialOrder(
            modality_lengths=modality_lengths,
            topology=ReferenceTopology.of(math.reference),
            seed=math.seed,
            group_by_modality=math.data.group_by_modality_length,
        )

    def steps(self) -> list[Step]:
        """Every optimizer step."""
        return list(iterate_steps(self._order, **self.length))

    def certificate(self, sample_ids: Sequence[str]) -> BatchCertificate:
        """The certificate of what the steps feed; `sample_ids[i]` is the id of sample i."""
        return certify(self._order, sample_ids, **self.length)
