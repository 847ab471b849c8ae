"""A step as a run records it, for tests that change some of its figures."""

from densekit.runs.records import StepMetrics

STEP = StepMetrics(
    step=1,
    loss=1.5,
    lr=0.1,
    grad_norm=0.25,
    updated=True,
    overflows=0,
    samples=2,
    tokens=9,
    supervised_tokens=4,
    masked_samples=0,
    seconds=0.5,
)
