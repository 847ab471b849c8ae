"""`densekit plan --measure N`: the first steps of a recipe, taken on this host by its launcher in a
folder of the cache, and the hours of the whole run that follow. No run comes of it.
"""

import statistics
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from densekit.batching.certificate import BatchCertificate
from densekit.errors import INTERRUPTED_CODE, PREEMPTED_CODE, DensekitError, UsageError
from densekit.evaluate.statistics.student import t_quantile
from densekit.files.json_files import read_json
from densekit.launch.chain import Stage, execution_of, locked, prepare, start
from densekit.launch.launchers.registry import launcher_class
from densekit.launch.screen import screen
from densekit.launch.selection import Selection, select
from densekit.planner.measured import (
    CONFIDENCE,
    FEWEST,
    MARGIN,
    MOST,
    Measured,
    warm_up_of,
)
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.planner.time import Interval
from densekit.recipes.load import load_recipe
from densekit.runs.environment import ENVIRONMENT_FILE, Environment
from densekit.runs.layout import CERTIFICATE_FILE
from densekit.runs.measurement import MeasureDir, measure_dir, opened
from densekit.runs.records import StepMetrics, read_steps
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.site import Site


class NotMeasuredError(DensekitError):
    """The processes ended before the last step; they have said why."""

    def __init__(self, code: int) -> None:
        stopped = code in (PREEMPTED_CODE, INTERRUPTED_CODE)
        why = "it was stopped" if stopped else f"the trainer ended with exit code {code}"
        super().__init__(f"nothing was measured: {why}")
        self.exit_code = INTERRUPTED_CODE if stopped else code


def measure(
    name: str, *, overrides: Sequence[str], request: ExecutionRequest, site: Site, steps: int
) -> tuple[Plan, Measured]:
    """Take so many steps of a recipe, without the stage that it needs, on the GPUs of this host or
    on its CPU; the plan they were taken by and what they took.

    What the processes print, and a bar, go to stderr. Raises UsageError or DataError, before
    anything is started, for what is missing or cannot work, as for hardware that this host does not
    have; NotMeasuredError where the processes fail.
    """
    if not FEWEST <= steps <= MOST:
        raise UsageError(f"--measure {steps}: give a number of steps from {FEWEST} to {MOST}")
    selection = select(load_recipe(name, overrides), request, site=_here(site))
    with redirect_stdout(sys.stderr), screen():
        print(selection.reason, flush=True)  # of a refusal too: which hardware was found
        (stage,) = prepare(
            name,
            overrides=overrides,
            runs_dir=site.roots.cache,
            roots=site.roots,
            request=selection.request,
            hardware=selection.hardware,
            launcher=selection.launcher,
            alone=True,
        )
        if stage.plan.steps is not None:
            _check_length(stage.plan.steps)
        run = measure_dir(stage.math, site.roots)
        with locked(run), opened(run, stage.math, steps):
            return _measured(run, stage, selection, site)


def _here(site: Site) -> Site:
    """The site's settings, without a launcher that trains on other machines."""
    if site.launcher is not None and launcher_class(site.launcher).remote:
        return site.model_copy(update={"launcher": None})
    return site


def _measured(
    run: MeasureDir, stage: Stage, selection: Selection, site: Site
) -> tuple[Plan, Measured]:
    """What was measured, and the plan as it is now that the run's batches are known."""
    execution = execution_of(stage.plan, site.roots, None)
    code = start(run, execution, selection.launcher)
    if code != 0:
        raise NotMeasuredError(code)
    environment = Environment.model_validate(read_json(run.attempt / ENVIRONMENT_FILE))
    certificate = BatchCertificate.from_json(read_json(run.path / CERTIFICATE_FILE))
    plan = make_plan(
        stage.recipe,
        selection.request,
        hardware=selection.hardware,
        certificate=certificate,
        roots=site.roots,
    )
    on = _on(execution, environment)
    return plan, measured(read_steps(run.metrics), on=on, run_steps=certificate.steps)


def _check_length(run_steps: int) -> None:
    if run_steps < FEWEST:
        raise UsageError(
            f"--measure: the run has {run_steps} steps in all, fewer than the {FEWEST} that are "
            "measured at the least; train it with `densekit run`"
        )


def _on(execution: Execution, environment: Environment) -> str:
    """What a measurement was made on, in words."""
    kinds = {device.name for device in environment.devices}
    if not kinds and environment.cpu is not None:
        kinds = {environment.cpu.model}
    kind = f": {', '.join(sorted(kinds))}" if kinds else ""
    return f"on {execution.world_size} x {execution.device}{kind}"


def measured(steps: Sequence[StepMetrics], *, on: str, run_steps: int) -> Measured:
    """What the steps of a measurement say about a run of `run_steps`. Raises UsageError where the
    run has too few.
    """
    _check_length(run_steps)
    warm_up = warm_up_of(len(steps))
    seconds = [step.seconds for step in steps[warm_up:]]
    mean, count = statistics.fmean(seconds), len(seconds)
    half = t_quantile((1 + CONFIDENCE) / 2, count - 1) * statistics.stdev(seconds) / count**0.5
    # No mean is below its least part, however few the steps.
    interval = Interval(low=max(mean - half, min(seconds)), high=mean + half)
    peaks = [step.peak_memory_gib for step in steps if step.peak_memory_gib is not None]
    return Measured(
        on=on,
        steps=len(steps),
        warm_up=warm_up,
        step_seconds=mean,
        step_interval=interval,
        run_steps=run_steps,
        hours=Interval(
            low=interval.low * (1 - MARGIN) * run_steps / 3600,
            high=interval.high * (1 + MARGIN) * run_steps / 3600,
        ),
        peak_memory_gib=max(peaks, default=None),
    )
