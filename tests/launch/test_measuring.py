"""`densekit plan --measure`: what some steps say about all, and that nothing else is left."""

from dataclasses import replace
from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.launch.launchers import local
from densekit.launch.launchers.local import Local
from densekit.launch.measuring import NotMeasuredError, measure, measured
from densekit.planner.measured import MARGIN, Measured
from densekit.planner.plan import Plan
from densekit.runs.layout import WorkDir
from densekit.runs.records import StepMetrics
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.site import Site
from tests.support.launching import trainer
from tests.support.ranks import run_ranks
from tests.support.steps import STEP
from tests.support.workplace import SMALL, Workplace

T_9 = 2.262157
"""Student's t at 97.5 % with 9 degrees of freedom, as tables print it."""


def steps(*seconds: float, peak: float | None = None) -> list[StepMetrics]:
    return [
        replace(STEP, step=number, seconds=each, peak_memory_gib=peak)
        for number, each in enumerate(seconds, start=1)
    ]


def test_the_hours_of_all_steps_by_hand() -> None:
    found = measured(steps(*[9.0] * 10, *[1.0, 3.0] * 5), on="on 1 x cpu", run_steps=1800)
    assert (found.steps, found.warm_up, found.step_seconds) == (20, 10, 2.0)
    half = T_9 * (10 / 9) ** 0.5 / 10**0.5
    assert found.step_interval.low == pytest.approx(2 - half, abs=1e-5)
    assert found.step_interval.high == pytest.approx(2 + half, abs=1e-5)
    assert found.hours.low == pytest.approx((2 - half) * (1 - MARGIN) / 2, abs=1e-5)
    assert found.hours.high == pytest.approx((2 + half) * (1 + MARGIN) / 2, abs=1e-5)
    assert found.peak_memory_gib is None


def test_few_steps_warm_up_for_half_of_them_and_give_a_wide_interval() -> None:
    found = measured(steps(9, 9, 9, 1, 2, 9, peak=3.5), on="", run_steps=100)
    assert (found.warm_up, found.step_seconds, found.peak_memory_gib) == (3, 4.0, 3.5)
    assert found.step_interval.low == 1.0, "no mean is below its least part"
    assert found.step_interval.high > 9
    with pytest.raises(UsageError, match=r"has 5 steps in all, fewer than the 6"):
        measured(steps(*[1.0] * 5), on="", run_steps=5)


def site(workplace: Workplace, tmp_path: Path) -> Site:
    """The tiny models of a workplace, and no folder of runs."""
    return Site(runs_dir=tmp_path / "runs", cache_dir=workplace.root / ".cache" / "densekit")


def take(where: Site, *overrides: str, count: int = 6) -> tuple[Plan, Measured]:
    return measure(
        "tiny_stage2",
        overrides=("data.samples=null", *SMALL, *overrides),
        request=ExecutionRequest(world_size=2),
        site=where,
        steps=count,
    )


def launch(self: Local, run: WorkDir, execution: Execution) -> int:
    """Start the real trainer from the fork server."""
    from densekit.train.measure import measure as take_steps

    run_ranks(execution.world_size, take_steps, run.path)
    return 0


@pytest.mark.ranks
def test_steps_are_taken_and_no_run_comes_of_it(
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Local, "launch", launch)
    plan, found = take(site(workplace, tmp_path), "optimizer.epochs=4", count=7)
    assert (found.steps, found.warm_up, found.run_steps) == (7, 3, 12)
    assert 0 < found.step_interval.low <= found.step_seconds <= found.step_interval.high
    assert found.on.startswith("on 2 x cpu")
    narrowed = plan.narrowed(found, price=2.0)
    assert (narrowed.steps, narrowed.num_samples, narrowed.hours) == (12, 48, found.hours)
    assert narrowed.execution.certificate_sha256 is not None, "the batches are known now"
    assert (narrowed.gpu_hours, narrowed.cost) == (None, None), "a CPU has neither"
    assert not (tmp_path / "runs").exists()
    assert not [*(workplace.root / ".cache/densekit/measure").glob("[!.]*")]
    assert capsys.readouterr().out == "", "standard output is the plan's alone"


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("script", "code", "why"),
    [
        ("status('failed', 'no', 3); sys.exit(3)", 3, "exit code 3"),
        ("status('preempted', 'asked', 75); sys.exit(75)", 130, "it was stopped"),
    ],
)
def test_a_trainer_that_ends_early_leaves_nothing(
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
    why: str,
) -> None:
    monkeypatch.setattr(local, "command", trainer(script))
    with pytest.raises(NotMeasuredError, match=why) as caught:
        take(site(workplace, tmp_path))
    assert caught.value.exit_code == code
    assert not [*(workplace.root / ".cache/densekit/measure").glob("[!.]*")]
