"""What the latest steps measured, in words."""

from dataclasses import replace

from densekit.runs.recent import WINDOW, Recent
from tests.support.steps import STEP

LATEST = replace(STEP, loss=2.0, lr=2e-5, grad_norm=1.0, samples=16, tokens=4096)


def test_means_are_over_the_window_and_memory_is_the_most() -> None:
    old = replace(LATEST, loss=1e9, seconds=1e9)
    steps = [replace(LATEST, mfu=0.4, peak_memory_gib=float(n)) for n in range(WINDOW)]
    last = replace(LATEST, loss=4.0, mfu=0.5, peak_memory_gib=3.0, seconds=0.5)
    found = Recent.of([old, *steps[1:], last])
    assert found.loss == 4.0 and found.mean_loss == (2.0 * (WINDOW - 1) + 4.0) / WINDOW
    assert (found.step_seconds, found.samples_per_second, found.tokens_per_second) == (
        *(0.5, 32.0),
        8192.0,
    )
    assert found.peak_memory_gib == WINDOW - 1
    assert found.words() == [
        *("loss 4", "mean 2.04", "lr 2e-05", "0.5 s/step", "32 samples/s", "8,192 tokens/s"),
        *("MFU 40.2%", "49.0 GiB"),
    ]


def test_the_speed_is_that_of_the_steps_that_were_timed() -> None:
    steps = [replace(LATEST, seconds=30.0), LATEST, LATEST]
    assert Recent.of(steps, timed=2).step_seconds == 0.5
    untimed = Recent.of(steps, timed=0)
    assert untimed.step_seconds is None and untimed.words() == ["loss 2", "mean 2", "lr 2e-05"]


def test_a_loss_that_is_not_finite_counts_in_no_mean() -> None:
    found = Recent.of([LATEST, replace(LATEST, loss=None)])
    assert (found.loss, found.mean_loss) == (None, 2.0)
    assert Recent.of([replace(LATEST, loss=None)]).mean_loss is None
