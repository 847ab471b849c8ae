"""Kill anywhere: SIGKILL after each file operation of a save; the resumed run ends in the very same
weights.
"""

import itertools
from pathlib import Path

import pytest

from densekit.audit.verify.verify import verify_run
from densekit.runs.complete import tidy
from tests.support.training import Kill, Started, Victim, assert_equal, start_run
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks

# What a save of two ranks does: each writes and syncs its fragments; rank 0 then writes and syncs
# checkpoint.json, syncs the folder, renames it and syncs the folder above; where an older one is to
# go it hides it (rename, sync).
OPERATIONS = {0: 9, 1: 2}
A_SAVE = 7
"""Operations of rank 0 in a save that hides no older one."""


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, workplace: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> Started:
    started = start_run(workplace, tmp_path_factory.mktemp("undisturbed"), zero_stage=request.param)
    started.finish()
    return started


VICTIMS: tuple[Victim, ...] = ("rank", "ranks", "parent")
CASES = [
    pytest.param(0, VICTIMS, id="ddp-in-turn"),
    pytest.param(3, VICTIMS, id="zero3-in-turn", marks=pytest.mark.slow),
    *(
        pytest.param(zero_stage, (victim,), id=f"{name}-{victim}", marks=pytest.mark.slow)
        for zero_stage, name in ((0, "ddp"), (3, "zero3"))
        for victim in VICTIMS
    ),
]
"""`make test` kills at every operation, one victim after the other; `make test-all` each victim
at every operation."""


@pytest.mark.parametrize(("undisturbed", "victims"), CASES, indirect=["undisturbed"])
def test_every_operation_of_a_save(
    undisturbed: Started, workplace: Workplace, tmp_path: Path, victims: tuple[Victim, ...]
) -> None:
    started = start_run(workplace, tmp_path, zero_stage=undisturbed.execution.zero_stage, keep=1)
    turns = itertools.cycle(victims)
    for rank, operations in OPERATIONS.items():
        for operation in range(operations):
            outcomes = started.attempt(Kill(rank, operation, next(turns)))
            assert outcomes[rank].exit_code in (-9, None), (operation, outcomes[rank].error)
            assert all(outcome.exit_code != 0 for outcome in outcomes), "a rank outlived the others"
    started.finish()
    assert_equal(started, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("undisturbed", [0], indirect=True)
def test_every_operation_at_the_end_of_a_run(
    undisturbed: Started, workplace: Workplace, tmp_path: Path
) -> None:
    """After the last step: its checkpoint is written, then the results, then what served to resume
    goes. No kill trains a step again, or leaves a run that does not verify.
    """
    started = start_run(workplace, tmp_path, save_steps=None)
    started.attempt(Kill(0, A_SAVE, "ranks"))
    measured = started.run.metrics.read_bytes()
    for operation in itertools.count():
        started.attempt(Kill(0, operation, "ranks"))
        tidy(started.run)
        failed = [check for check in verify_run(started.run.path) if check.state == "fail"]
        assert not failed, (operation, failed)
        if started.run.complete:
            break
    assert operation > 5 and started.run.metrics.read_bytes() == measured
    assert not started.run.checkpoints.exists()
    assert_equal(started, undisturbed)
