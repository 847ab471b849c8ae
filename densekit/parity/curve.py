"""A recorded training: every optimizer step, the official log, and the weights after it."""

from collections.abc import Callable
from math import nan
from typing import Any

from torch import Tensor

from densekit.parity.case import Recording, make_trainer
from densekit.parity.compare import (
    CURVE,
    FINAL_WEIGHTS,
    GRAD_NORM,
    ROUNDED_LOG,
    Quantities,
    compare_statistics,
)
from densekit.parity.computed import trainable_parameters
from densekit.parity.names import by_official_name
from densekit.runs.records import StepMetrics
from densekit.train.step_dataset import SampleReader
from densekit.train.trainer import Trainer


def check_curve(
    recording: Recording,
    model: Any,
    reader: SampleReader,
    quantities: Quantities,
    *,
    tolerance: float = FINAL_WEIGHTS,
    rounding: tuple[str, ...] = (),
    prepare: Callable[[Trainer], None] | None = None,
) -> None:
    """Every recorded optimizer step: sample ids, loss, learning rate, gradient norm; then the
    statistics of the final weights, within `tolerance`, but of those whose name ends in one of
    `rounding`: their gradients are nothing else. `prepare` is given the trainer.
    """
    record = recording.record
    steps = recording.steps(reader.samples)
    ids = [
        [str(reader.samples[int(i)].entry_id) for group in step.groups for i in group]
        for step in steps
    ]
    quantities.exact("order", ids, [step["ids"] for step in record["steps"]])
    if "order" in record:
        quantities.exact("order", ids, record["order"])
    trainer = make_trainer(model, reader, steps, recording.math)
    if prepare is not None:
        prepare(trainer)
    lines = []
    for batch in trainer.batches():
        trainer.check_feed(batch)
        lines.append(trainer.step(batch))
    for line, step in zip(lines, record["steps"], strict=True):
        quantities.close("curve_loss", _loss(line), step["loss"], CURVE)
        quantities.relative("curve_grad_norm", line.grad_norm, step["grad_norm_preclip"], GRAD_NORM)
    _check_log(trainer, lines, record, reader, quantities)
    if "final_params" in record:
        parameters = trainable_parameters(model)
        recorded = by_official_name(record["final_params"])
        quantities.exact("trainable", sorted(parameters), sorted(recorded))
        for name, statistics in recorded.items():
            if not name.endswith(rounding):
                compare_statistics(
                    quantities, "final_statistics", parameters[name], statistics, tolerance
                )


def _loss(line: StepMetrics) -> float:
    return nan if line.loss is None else line.loss


def _check_log(
    trainer: Trainer,
    lines: list[StepMetrics],
    record: dict[str, Any],
    reader: SampleReader,
    quantities: Quantities,
) -> None:
    rounds = -(-len(reader.samples) // trainer.dataset.steps[0].groups[0].size)
    base = trainer.optimizer_config.learning_rate
    own = {group["base_lr"] for group in trainer.engine.optimizer.param_groups}
    for line, step in zip(lines, record["steps"], strict=True):
        ours = sorted({rate * line.lr / base for rate in own})
        quantities.close("curve_lr", ours, sorted(set(step["lr"])), 1e-12)
    logged = [entry for entry in record.get("log", []) if "loss" in entry]
    for entry in record.get("log", []):
        if "train_loss" in entry:
            quantities.close(
                "log", sum(_loss(line) for line in lines) / len(lines), entry["train_loss"], CURVE
            )
    for line, following, entry in zip(lines, [*lines[1:], None], logged, strict=False):
        quantities.close("log", _loss(line), entry["loss"], CURVE + ROUNDED_LOG)
        # The official log shows the rate of the next step.
        quantities.close("log", following.lr if following else 0.0, entry["learning_rate"], 1e-12)
        quantities.close("log_epoch", round(line.step / rounds, 2), entry["epoch"], 0.0)


def check_weights(
    name: str,
    ours: dict[str, Tensor],
    recorded: dict[str, Tensor],
    quantities: Quantities,
    *,
    tolerance: float = FINAL_WEIGHTS,
) -> None:
    """Weights after training, by official name; relative to each tensor's size."""
    quantities.exact(f"{name}_names", sorted(ours), sorted(recorded))
    for key, value in recorded.items():
        quantities.relative(name, ours[key], value, tolerance)
