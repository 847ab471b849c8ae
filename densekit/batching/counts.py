"""How many optimizer steps a run takes, and how many samples it drops and repeats
(docs/upstream.md, U9).

`faithful` is the official counting (transformers 4.36 with accelerate 0.21): the data loader has
ceil(n / (per-device batch x world size)) rounds per epoch, an epoch counts as max(rounds //
accumulation, 1) updates, and training stops at ceil(epochs x updates) or at max_steps.

* The last round of several processes is completed from the start of the same epoch's order; with
  one process it is short.
* Accumulation counts rounds across epochs: the rounds an epoch leaves over are not thrown away,
  they open the next epoch's first step. Because the step total was fixed from whole updates, what
  is left at the end is never consumed.
* An epoch of at most `accumulation` rounds ends with an update, however few rounds that update
  holds.

`fixed` cuts every epoch into ceil(n / global batch) steps, the last one short: nothing is repeated
or dropped.
"""

import bisect
import math
from dataclasses import dataclass

from densekit.errors import DataError, UsageError
from densekit.spec.math import Reference
from densekit.spec.types import Semantics


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What a run consumes."""

    rounds_per_epoch: int
    """The official len(dataloader)."""
    updates_per_epoch: int
    steps: int
    """Optimizer steps of the whole run."""
    samples_dropped: int
    """Samples of the whole epochs asked for that reach no step; with max_steps no epoch is asked
    for, so 0.
    """
    samples_repeated: int
    """Samples added to complete a last round."""


def count_steps(
    num_samples: int,
    *,
    topology: Reference,
    epochs: float | None = None,
    max_steps: int | None = None,
    tail: Semantics = "faithful",
) -> StepCounts:
    """Count the steps of `epochs` passes (may be fractional) or of exactly `max_steps`, in time
    that does not grow with either.

    Raises UsageError unless exactly one of the two is given and positive, DataError without
    samples.
    """
    if num_samples < 1:
        raise DataError(
            f"{num_samples} samples: there is nothing to train on; check the annotation file"
        )
    if (epochs is None) == (max_steps is None):
        raise UsageError(f"epochs={epochs}, max_steps={max_steps}: give exactly one of the two")
    round_size = topology.gpus * topology.per_device_batch_size
    rounds = math.ceil(num_samples / round_size)
    if tail == "fixed":
        updates = math.ceil(num_samples / topology.global_batch_size)
    else:
        updates = max(rounds // topology.grad_accum_steps, 1)
    steps = max_steps if max_steps is not None else math.ceil((epochs or 0) * updates)
    if steps < 1:
        raise UsageError(
            f"epochs={epochs}, max_steps={max_steps}: that is no step at all; give a positive "
            "number"
        )

    dropped = repeated = 0
    if tail == "faithful":
        whole_epochs, more = divmod(
            _rounds_consumed(rounds, topology.grad_accum_steps, steps), rounds
        )
        fresh = whole_epochs * num_samples + more * round_size
        dropped = max(math.floor(epochs or 0) * num_samples - fresh, 0)
        if topology.gpus > 1:
            repeated = whole_epochs * (rounds * round_size - num_samples)
    return StepCounts(
        rounds_per_epoch=rounds,
        updates_per_epoch=updates,
        steps=steps,
        samples_dropped=dropped,
        samples_repeated=repeated,
    )


def official_step_counts(num_samples: int, topology: Reference) -> dict[int, int]:
    """Return {accumulation: steps of one official epoch} for every way to reach `topology`'s global
    batch on its GPUs.

    Those are the divisors of per-device batch x accumulation, in rising order. Raises DataError
    without samples.
    """
    per_gpu = topology.per_device_batch_size * topology.grad_accum_steps
    counts: dict[int, int] = {}
    for accumulation in range(1, per_gpu + 1):
        if per_gpu % accumulation == 0:
            variant = Reference(
                gpus=topology.gpus,
                per_device_batch_size=per_gpu // accumulation,
                grad_accum_steps=accumulation,
            )
            counts[accumulation] = count_steps(num_samples, topology=variant, epochs=1).steps
    return counts


def _rounds_consumed(rounds: int, accumulation: int, steps: int) -> int:
    """Return after how many rounds of `rounds` per epoch the official trainer has taken `steps`
    updates.
    """
    if rounds > accumulation:
        return steps * accumulation
    # Updates fall on multiples of the accumulation and on the end of each epoch; both meet at
    # `period`.
    period = math.lcm(rounds, accumulation)

    def updates_by(seen: int) -> int:
        return seen // accumulation + seen // rounds - seen // period

    whole_periods, more = divmod(steps, updates_by(period))
    return whole_periods * period + bisect.bisect_left(range(period), more, key=updates_by)
