"""fp16 with overflows forced by a loss scale that is too large: what becomes of the batch (ledger
L2), and resuming.
"""

from pathlib import Path
from typing import Any

import pytest

from densekit.runs.records import StepMetrics
from densekit.train.optim import learning_rate_factor
from tests.support.ranks import run_ranks
from tests.support.worlds import fp16_steps

pytestmark = pytest.mark.ranks

STEPS = 4


def train(
    golden: Path, folder: Path, zero_stage: int, overflow: str, **options: Any
) -> tuple[list[StepMetrics], int, dict]:
    options = {"scale_power": 18, **options}
    return run_ranks(2, fp16_steps, golden, zero_stage, folder, overflow=overflow, **options)[
        0
    ].returned


@pytest.mark.parametrize(
    ("zero_stage", "cpu_offload"),
    [
        (0, False),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in ((2, False), (3, False), (3, True))
        ),
    ],
)
def test_what_an_overflow_does_to_its_batch(
    golden: Path, tmp_path: Path, zero_stage: int, cpu_offload: bool
) -> None:
    faithful, steps, scaler = train(
        golden, tmp_path, zero_stage, "faithful", cpu_offload=cpu_offload
    )
    lost = [record for record in faithful if not record.updated]
    assert 1 <= len(lost) < STEPS and steps == STEPS - len(lost)
    assert all((record.overflows, record.grad_norm) == (1, None) for record in lost)
    # The schedule does not move on: the first update has the rate of the first step, and so on.
    factors = [
        learning_rate_factor(number, steps=STEPS, warmup_ratio=0.03) for number in range(steps)
    ]
    assert [record.lr for record in faithful if record.updated] == [
        1e-3 * factor for factor in factors
    ]
    assert [record.step for record in faithful] == list(range(1, STEPS + 1)), (
        "every batch is consumed once"
    )

    fixed, steps, fixed_scaler = train(
        golden, tmp_path, zero_stage, "fixed", cpu_offload=cpu_offload
    )
    assert steps == STEPS and all(record.updated for record in fixed)
    assert fixed[0].overflows >= 1 and all(record.grad_norm for record in fixed)
    scale = "scale" if zero_stage == 0 else "cur_scale"
    assert scaler[scale] < 2**18 and fixed_scaler[scale] < 2**18
    # The first batch is the same: repeating it at a lower scale changes neither it nor the order
    # behind it.
    assert fixed[0].loss == faithful[0].loss


@pytest.mark.parametrize("zero_stage", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_keeps_its_loss_scale_and_schedule(
    golden: Path, tmp_path: Path, zero_stage: int
) -> None:
    whole = train(golden, tmp_path, zero_stage, "faithful")
    resumed = train(golden, tmp_path, zero_stage, "faithful", split_at=2)
    assert resumed == whole and whole[1] > 0


def test_too_many_overflows_end_the_run(golden: Path, tmp_path: Path) -> None:
    outcomes = run_ranks(
        1, fp16_steps, golden, 0, tmp_path, overflow="fixed", scale_power=60, may_fail=True
    )
    assert (
        "fp16 gradients overflowed 12 times in a row at step 1: training diverged"
        in outcomes[0].error
    )
