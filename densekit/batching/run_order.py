"""What one recipe feeds: the official order of its samples, its steps and its certificate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from densekit.batching.certificate import BatchCertificate, certify
from densekit.batching.counts import StepCounts, count_steps
from densekit.batching.order import OfficialOrder, ReferenceTopology
from densekit.batching.steps import Step, iterate_steps


def run_length(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """How long a recipe trains, as the arguments epochs, max_steps and tail of `iterate_steps` and
    its relatives.

    `recipe` is a recipe's math (`Recipe.math()`), here and below.
    """
    optimizer = recipe["optimizer"]
    epochs = None if optimizer["max_steps"] else optimizer["epochs"]
    return {"epochs": epochs, "max_steps": optimizer["max_steps"], "tail": recipe["ledger"]["U9"]}


def count_run(recipe: Mapping[str, Any], num_samples: int) -> StepCounts:
    """Steps of a recipe over `num_samples` entries, and the samples they drop or repeat; errors of
    `count_steps`.
    """
    return count_steps(
        num_samples, topology=ReferenceTopology.of(recipe["reference"]), **run_length(recipe)
    )


class RunOrder:
    """The order of one recipe over one annotation file."""

    def __init__(self, recipe: Mapping[str, Any], modality_lengths: npt.NDArray[np.int64]) -> None:
        """`modality_lengths`, shape (samples,): words per sample, negative for text-only ones."""
        self.length = run_length(recipe)
        self._order = OfficialOrder(
            modality_lengths=modality_lengths,
            topology=ReferenceTopology.of(recipe["reference"]),
            seed=recipe["seed"],
            group_by_modality=recipe["data"]["group_by_modality_length"],
        )

    def steps(self) -> list[Step]:
        """Every optimiser step."""
        return list(iterate_steps(self._order, **self.length))

    def certificate(self, sample_ids: Sequence[str]) -> BatchCertificate:
        """The certificate of what the steps feed; `sample_ids[i]` is the id of sample i."""
        return certify(self._order, sample_ids, **self.length)
