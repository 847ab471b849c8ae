"""TensorBoard and W&B, through accelerate's trackers: every recorded step, under titles, with the
time of day, in the folder of the attempt. Rank 0 alone has them.

W&B writes offline unless WANDB_MODE says otherwise: `wandb sync` uploads it later, and a trainer in
a container has no network.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from densekit.runs.layout import RunDir
from densekit.runs.records import StepMetrics
from densekit.spec.types import TrackerName

PROJECT = "densekit"
TITLES = {
    "loss": "train/loss",
    "lr": "train/learning rate",
    "grad_norm": "train/gradient norm before clipping",
    "overflows": "train/fp16 overflows",
    "supervised_tokens": "batch/label positions",
    "tokens": "batch/tokens",
    "seconds": "speed/seconds per step",
    "data_seconds": "speed/seconds waiting for data",
    "tokens_per_second": "speed/tokens per second",
    "mfu": "speed/MFU",
    "peak_memory_gib": "memory/GiB of a GPU",
}
"""What a step records -> where it is found."""


class Trackers:
    """The trackers of an attempt; a context manager that closes them.

    One that fails, because a disk is full or a network gone, is left out from there on, and stderr
    says so: the run's own records are whole.
    """

    def __init__(self, names: Sequence[TrackerName], run: RunDir) -> None:
        """Start them."""
        self._run = run
        self._open: dict[str, GeneralTracker] = {}
        for name in names:
            self._try(name, self._start)

    def log(self, step: StepMetrics) -> None:
        """One step; what it did not measure is left out."""
        if not self._open:
            return
        values = {title: getattr(step, name) for name, title in TITLES.items()}
        known = {title: value for title, value in values.items() if value is not None}
        for name in [*self._open]:
            self._try(name, lambda name: self._open[name].log(known, step=step.step))

    def _start(self, name: str) -> None:
        folder, title = self._run.attempt, self._run.path.name
        tracker: GeneralTracker
        if name == "tensorboard":
            tracker = TensorBoardTracker(name, logging_dir=folder)
        else:
            # What is printed goes into the attempt's log already.
            os.environ |= {"WANDB_CONSOLE": "off", "WANDB_SILENT": "true"}
            tracker = WandBTracker(
                PROJECT,
                name=title,
                group=title,
                job_type=self._run.attempt.name,
                dir=str(folder),
                mode=os.environ.get("WANDB_MODE", "offline"),
            )
        tracker.start()
        self._open[name] = tracker
        if name == "wandb":
            tracker.store_init_configuration(flat(self._run.math.recipe.model_dump(mode="json")))

    def _try(self, name: str, work: Callable[[str], None]) -> None:
        try:
            work(name)
        except Exception as error:
            self._open.pop(name, None)
            print(
                f"{self._run.name}: {name} gets no more figures ({type(error).__name__}: {error})",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in [*self._open]:
            self._try(name, lambda name: self._open[name].finish())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | str | float | int | None]:
    """A mapping of mappings under dotted names; lists as text."""
    found: dict[str, bool | str | float | int | None] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            plain = value is None or isinstance(value, bool | str | float | int)
            found[f"{prefix}{key}"] = value if plain else str(value)
    return found
