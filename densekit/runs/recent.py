"""What the latest steps of a run measured, in a few words: what progress shows of a step, in the
trainer's log lines and in the driver's bar.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

WINDOW = 50
"""Steps that the shown means are over, at most."""


class Step(Protocol):
    """What is asked of a step; StepMetrics has it."""

    @property
    def loss(self) -> float | None: ...
    @property
    def lr(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def mfu(self) -> float | None: ...
    @property
    def peak_memory_gib(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class Recent:
    """Of the last WINDOW steps; the speed of those alone that one attempt took."""

    loss: float | None
    """Of the last step; None where it is not finite."""
    mean_loss: float | None
    lr: float
    step_seconds: float | None = None
    """Mean; this and the rates are None where the attempt took no step yet, or measured none."""
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    """Mean; None on a CPU and for a GPU whose peak is not known."""
    peak_memory_gib: float | None = None
    """The most that a step took of rank 0's GPU; None on a CPU."""

    @classmethod
    def of(cls, steps: Sequence[Step], *, timed: int | None = None) -> "Recent":
        """Of the latest steps, at least one; only the last `timed` of them (None: all) say
        something about the speed.
        """
        steps = steps[-WINDOW:]
        last, losses = steps[-1], [step.loss for step in steps if _is_finite(step.loss)]
        known = [loss for loss in losses if loss is not None]
        found = cls(
            loss=last.loss if _is_finite(last.loss) else None,
            mean_loss=sum(known) / len(known) if known else None,
            lr=last.lr,
        )
        taken = steps[-timed:] if timed else steps if timed is None else []
        seconds = sum(step.seconds for step in taken)
        if not 0 < seconds < math.inf:
            return found
        mfus = [step.mfu for step in taken if step.mfu is not None]
        peaks = [step.peak_memory_gib for step in taken if step.peak_memory_gib is not None]
        return cls(
            loss=found.loss,
            mean_loss=found.mean_loss,
            lr=found.lr,
            step_seconds=seconds / len(taken),
            samples_per_second=sum(step.samples for step in taken) / seconds,
            tokens_per_second=sum(step.tokens for step in taken) / seconds,
            mfu=sum(mfus) / len(mfus) if mfus else None,
            peak_memory_gib=max(peaks, default=None),
        )

    def words(self) -> list[str]:
        """A phrase each, those that are known: `loss 1.234`, `0.21 s/step`."""
        shown = {
            "loss {:.4g}": self.loss,
            "mean {:.4g}": self.mean_loss,
            "lr {:.3g}": self.lr,
            "{:.3g} s/step": self.step_seconds,
            "{} samples/s": _figure(self.samples_per_second),
            "{} tokens/s": _figure(self.tokens_per_second),
            "MFU {:.1%}": self.mfu,
            "{:.1f} GiB": self.peak_memory_gib,
        }
        return [text.format(value) for text, value in shown.items() if value is not None]


def _figure(value: float | None) -> str | None:
    """With three digits at least, thousands grouped."""
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
