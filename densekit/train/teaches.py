"""Whether a run can teach anything, before its first step, and whether it did, after its last.

A run that taught nothing must not count as complete: a second stage would start from it.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import chain, islice

import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.ranks.collectives import gather_objects
from densekit.spec.math import Optimizer
from densekit.train.engines.base import Engine
from densekit.train.optim import learning_rate_factor
from densekit.train.step_dataset import StepDataset
from densekit.train.trainer import MASKED_ADVICE, MASKED_FROM_SAMPLES, Trainer, counted

FEW_MASKED_LIMIT = 0.5
"""Share of samples without a label above which a run of fewer than MASKED_FROM_SAMPLES is refused;
the loop's own limit is stricter, and holds from so many samples on.
"""


def check_schedule(optimizer: Optimizer, steps: int) -> None:
    """Raise DataError when every step of a run has learning rate 0. Not for `max_steps`: who asks
    for that many steps may want their losses alone, and the report says what they taught.
    """
    if optimizer.max_steps is None and not _rises(optimizer, steps):
        raise DataError(
            f"the learning rate is 0 in every step of this run (steps: {steps}; warm-up rises from "
            f"0 over {optimizer.warmup_ratio:.0%} of them): nothing would be trained; give more "
            "samples, a smaller global_batch_size, or `optimizer.warmup_ratio: 0`"
        )


def schedule_note(optimizer: Optimizer, steps: int) -> list[str]:
    """A line of the report for a run whose every step had learning rate 0."""
    if _rises(optimizer, steps):
        return []
    return ["the learning rate was 0 in every step (optimizer.max_steps): no weight was trained"]


def _rises(optimizer: Optimizer, steps: int) -> bool:
    """Whether a step of the schedule has a rate above 0."""
    ratio = optimizer.warmup_ratio
    return any(learning_rate_factor(step, steps=steps, warmup_ratio=ratio) for step in range(steps))


def check_labels(dataset: StepDataset) -> None:
    """Raise DataError when no sample of a run has a label, or most of a small run's have none.

    Reads texts until one has a label, and all of them in a run of few samples.
    """
    order = (sample for step in dataset.steps for sample, _ in step.samples)
    first = list(islice(order, MASKED_FROM_SAMPLES))
    few = len(first) < MASKED_FROM_SAMPLES
    notes: Counter[str] = Counter()
    masked = read = 0
    for sample in chain(first, order):
        sequence, encoded = dataset.reader.sequence(sample)
        read += 1
        if sequence.label_count:
            if not few:
                return
            continue
        masked += 1
        notes.update(encoded.notes)
    if masked > FEW_MASKED_LIMIT * read:
        taught = "nothing" if masked == read else "next to nothing"
        raise DataError(
            f"{masked} of the {read} samples of this run have no label ({counted(notes)}): it "
            f"would teach {taught}. data.max_length is "
            f"{dataset.reader.encoder.max_length}, an image alone has "
            f"{dataset.reader.layout.max_tokens} tokens. {MASKED_ADVICE}"
        )


def check_taught(trainer: Trainer, init: Mapping[str, Tensor]) -> None:
    """Raise DataError, on every rank, when the weights that a run ends with are not finite or are
    those that it began with. `init` is what was drawn or read for step 0, by parameter.
    """
    engine = trainer.engine
    if broken := _not_finite(engine):
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise DataError(
            f"weights are not finite after the last step: {broken[0]}{more}; training diverged: "
            "lower optimizer.learning_rate or optimizer.weight_decay, or set "
            "optimizer.max_grad_norm"
        )
    if not _rises(trainer.optimizer_config, len(trainer.dataset)):
        return  # refused before step 1, or asked for
    if trainer.optimizer_steps == 0:
        raise DataError(
            f"none of the {len(trainer.dataset)} steps changed a weight: all overflowed in fp16; "
            "use bf16 or fp32 (--dtype)"
        )
    if init.keys() == engine.trainable.keys() and not _changed(engine, init):
        raise DataError(
            "every trained weight is what it was at step 0, to the last bit: the run taught "
            "nothing. Raise optimizer.learning_rate; a connector learns from samples with images "
            "only"
        )


def _not_finite(engine: Engine) -> list[str]:
    """Names of parameters with an infinite or undefined weight on any rank."""
    mine = [shard.name for shard in engine.shards() if not torch.isfinite(shard.weight).all()]
    return sorted({name for part in gather_objects(mine) for name in part})


def _changed(engine: Engine, init: Mapping[str, Tensor]) -> bool:
    """Whether any weight on any rank is another than at step 0."""
    changed = False
    for shard in engine.shards():
        before = init[shard.name].reshape(-1)[shard.start : shard.start + len(shard)]
        changed = changed or not torch.equal(shard.weight.detach().cpu(), before.float())
    return any(gather_objects(changed))
