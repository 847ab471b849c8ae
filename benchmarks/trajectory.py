"""How often `densekit trajectory` names the right situation: simulated curves, 20 seeds each.

A step's loss is a trend that every training has, the difficulty of that step's samples, which they
share, and what two trainings make of the same samples differently.
Each situation is simulated from its own description; the finding counts as right where it is the
first of the losses (`losses` below), and where `file` says one, is among the findings besides.
The sizes (`Curves`) are assumed, and such that two trainings of the same samples correlate about as
tiny ones really do (docs/how-to/trajectory.md).
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from densekit.audit.trajectory.compare import judge
from densekit.audit.trajectory.published import read_published
from densekit.audit.trajectory.situation import Kind, RunFacts
from densekit.runs.records import StepRecord

LENGTH = 5198
"""Steps of the simulated trainings: mix665k at a global batch of 128."""
RATE = 2e-5


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Sizes of the parts of a loss, in nats."""

    start: float = 1.6
    end: float = 0.9
    falls_in: float = 120.0
    """Steps in which the excess over `end` falls to a third."""
    shared: float = 0.10
    """Standard deviation of a step's difficulty."""
    own: float = 0.05
    """Standard deviation of what two projector seeds make of the same step differently."""
    coarse: float = 0.6
    """Extra loss of coarse positions before training, at the mean length."""
    coarse_left: float = 0.03
    """Of it that training does not take away."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: a loss, a rate and a mean length of samples for each step."""

    losses: np.ndarray
    rates: np.ndarray
    lengths: np.ndarray

    def log(self, *, interval: int = 1) -> list[dict[str, Any]]:
        """What HF's Trainer logs of it: rounded losses, and the rate of the next step."""
        entries = []
        for step in range(interval, len(self.losses) + 1, interval):
            loss = float(self.losses[step - interval : step].mean())
            rate = float(self.rates[step]) if step < len(self.rates) else 0.0
            entries.append({"loss": round(loss, 4), "learning_rate": rate, "step": step})
        return entries

    def records(self, steps: int) -> list[StepRecord]:
        """The first steps as a run records them."""
        return [
            StepRecord(
                step=index + 1,
                loss=float(self.losses[index]) if np.isfinite(self.losses[index]) else None,
                lr=float(self.rates[index]),
                grad_norm=1.0,
                updated=True,
                overflows=0,
                samples=128,
                tokens=int(self.lengths[index] * 128),
                supervised_tokens=128,
                masked_samples=0,
                ids="",
                images="",
                chain="",
            )
            for index in range(steps)
        ]


def schedule(steps: int, peak: float) -> np.ndarray:
    """Linear warm-up over 3 %, then cosine to zero, as HF's [steps]."""
    warmup = math.ceil(0.03 * steps)
    at = np.arange(steps)
    cosine = 0.5 * (1 + np.cos(np.pi * (at - warmup) / max(1, steps - warmup)))
    return peak * np.where(at < warmup, at / max(1, warmup), cosine)


def training(
    *,
    order: int,
    projector: int,
    curves: Curves,
    steps: int = LENGTH,
    rate: float = RATE,
    coarse: bool = False,
) -> Training:
    """A training over the samples that the seed `order` puts into each step."""
    samples, own = np.random.default_rng([1, order]), np.random.default_rng([2, projector])
    # A fifth of the steps is text alone, as batches grouped by modality are; its lengths vary more.
    text = samples.random(steps) < 0.2
    lengths = np.where(text, samples.uniform(100, 1600, steps), samples.uniform(620, 1000, steps))
    difficulty = curves.shared * samples.standard_normal(steps) + np.where(text, 0.15, 0.0)
    at = np.arange(steps)
    speed = math.sqrt(rate / RATE)
    decay = np.exp(-at * speed / curves.falls_in)
    losses = curves.end + (curves.start - curves.end) * decay + difficulty
    losses += curves.own * own.standard_normal(steps)
    if coarse:
        left = curves.coarse_left + (curves.coarse - curves.coarse_left) * decay
        losses += left * lengths / lengths.mean()
    return Training(losses=losses, rates=schedule(steps, rate), lengths=lengths)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run and a file that one situation describes."""

    run: Training
    log: list[dict[str, Any]]
    length: int = LENGTH
    """Of the file's training."""
    losses: Kind
    """The finding that comes first."""
    file: Kind | None = None
    """A finding that must be there besides."""
    steps: int = 50
    extra: dict[str, Any] = field(default_factory=dict)

    def facts(self, records: Sequence[StepRecord]) -> RunFacts:
        """What the run's recipe says."""
        return RunFacts(
            stage=2,
            positions="exact",
            learning_rate=RATE,
            length=len(self.run.losses),
            steps=len(records),
            not_finite=tuple(step.step for step in records if step.loss is None),
        )


def _same(seed: int, curves: Curves) -> Case:
    run = training(order=seed, projector=seed, curves=curves)
    return Case(run=run, log=run.log(), losses="same")


def _rounding(seed: int, curves: Curves) -> Case:
    """Other kernels at equal weights: nothing at first, then more and more."""
    run = training(order=seed, projector=seed, curves=curves)
    noise = np.random.default_rng([3, seed]).standard_normal(LENGTH) * 2e-4
    noise *= 1 + np.arange(LENGTH) / 10
    file = replace(run, losses=run.losses + np.clip(noise, -0.03, 0.03))
    return Case(run=run, log=file.log(), losses="same")


def _two(seed: int, curves: Curves, **other: Any) -> tuple[Training, Training]:
    run = training(order=seed, projector=seed, curves=curves)
    settings: dict[str, Any] = {"order": seed, "projector": seed + 1000, "curves": curves}
    return run, training(**settings | other)


def _seed(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves)
    return Case(run=run, log=file.log(), losses="other_projector_seed")


def _order(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves, order=seed + 1000)
    return Case(run=run, log=file.log(), losses="other_order")


def _shifted(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves)
    by = 1 + seed % 30
    shifted = replace(file, losses=np.concatenate([file.losses[:by][::-1], file.losses[:-by]]))
    return Case(run=run, log=shifted.log(), losses="shifted_order")


def _rate(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves, rate=2 * RATE)
    return Case(run=run, log=file.log(), losses="same_order", file="other_learning_rate")


def _coarse(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves, coarse=True)
    return Case(run=run, log=file.log(), losses="coarse_positions")


def _sparse(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves)
    return Case(
        run=run,
        log=file.log(interval=10),
        losses="other_projector_seed",
        file="sparse_log",
        steps=500,
    )


def _sparse_order(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves, order=seed + 1000)
    return Case(
        run=run, log=file.log(interval=10), losses="other_order", file="sparse_log", steps=500
    )


def _sparse_early(seed: int, curves: Curves) -> Case:
    return replace(_sparse(seed, curves), losses="undecided", steps=50)


def _repeated(seed: int, curves: Curves) -> Case:
    """Resumed from step 20: steps 21 to 40 were logged before that too, with other losses."""
    run, file = _two(seed, curves)
    first = training(order=seed, projector=seed + 2000, curves=curves)
    log = [*first.log()[:40], *file.log()[20:]]
    return Case(run=run, log=log, losses="other_projector_seed", file="repeated_steps")


def _nan(seed: int, curves: Curves) -> Case:
    run, file = _two(seed, curves)
    log = file.log()
    for step in (seed % 40, 41, 45):
        log[step]["loss"] = math.nan
    return Case(run=run, log=log, losses="other_projector_seed", file="not_finite")


def _length(seed: int, curves: Curves) -> Case:
    """Other data: another number of samples is another order."""
    run, file = _two(seed, curves, order=seed + 1000, steps=4000)
    return Case(run=run, log=file.log(), length=4000, losses="other_order", file="other_length")


CASES: dict[str, Callable[[int, Curves], Case]] = {
    "the same training": _same,
    "the same, other kernels": _rounding,
    "another projector seed": _seed,
    "another order": _order,
    "the same order, shifted": _shifted,
    "another learning rate (2x)": _rate,
    "coarse positions": _coarse,
    "logged every 10 steps, 500 steps old": _sparse,
    "logged every 10 steps, another order": _sparse_order,
    "logged every 10 steps, 50 steps old": _sparse_early,
    "resumed, steps twice": _repeated,
    "NaN": _nan,
    "another length (other data)": _length,
}


def findings(case: Case, folder: Path, *, steps: int | None = None) -> list[Kind]:
    """What the command would name, the losses' finding first."""
    path = folder / "trainer_state.json"
    state = {"global_step": case.length, "max_steps": case.length, "log_history": case.log}
    path.write_text(json.dumps(state | case.extra), encoding="utf-8")
    records = case.run.records(steps or case.steps)
    _, found = judge(records, read_published(path), case.facts(records))
    return [situation.kind for situation in found]


def is_right(case: Case, found: Sequence[Kind]) -> bool:
    """Whether the first finding is the case's, and the file's is among the others."""
    return found[0] == case.losses and (case.file is None or case.file in found)


def main() -> None:
    """Simulate, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, help="age of the run (default: each case's own)")
    parser.add_argument("--shared", type=float, default=Curves.shared, help="nats")
    parser.add_argument("--own", type=float, default=Curves.own, help="nats")
    arguments = parser.parse_args()
    curves = Curves(shared=arguments.shared, own=arguments.own)
    wrong_in_all = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, make in CASES.items():
            wrong: Counter[str] = Counter()
            for seed in range(arguments.seeds):
                case = make(seed, curves)
                found = findings(case, Path(folder), steps=arguments.steps)
                if not is_right(case, found):
                    wrong[", ".join(found)] += 1
            count = sum(wrong.values())
            wrong_in_all += count
            named = "; ".join(f"{times} x {kinds}" for kinds, times in wrong.items())
            print(f"{name:40s} {count:3d} of {arguments.seeds} wrong  {named}".rstrip())
    print(f"{wrong_in_all} of {arguments.seeds * len(CASES)} wrong")


if __name__ == "__main__":
    main()
