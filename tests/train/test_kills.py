"""Kill anywhere: SIGKILL after each file operation of a save; the resumed run ends in the very same
weights.
"""

from pathlib import Path

import pytest

from tests.support.training import Kill, Started, Victim, assert_equal, start_run
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks

# What a save of two ranks does: each writes and syncs its fragments; rank 0 then writes and syncs
# checkpoint.json, syncs the folder, renames it and syncs the folder above; where an older one is to
# go it hides it (rename, sync).
OPERATIONS = {0: 9, 1: 2}


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, workplace: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> Started:
    started = start_run(workplace, tmp_path_factory.mktemp("undisturbed"), zero_stage=request.param)
    started.finish()
    return started


VICTIMS = ("rank", "ranks", "parent")
# DDP for every victim; ZeRO-3 takes three times as long, so most of it is for `make test-all`.
CASES = [pytest.param(0, victim, id=f"ddp-{victim}") for victim in VICTIMS] + [
    pytest.param(
        3, victim, id=f"zero3-{victim}", marks=[pytest.mark.slow] if victim != "ranks" else []
    )
    for victim in VICTIMS
]


@pytest.mark.parametrize(("undisturbed", "victim"), CASES, indirect=["undisturbed"])
def test_every_operation_of_a_save(
    undisturbed: Started, workplace: Workplace, tmp_path: Path, victim: Victim
) -> None:
    started = start_run(workplace, tmp_path, zero_stage=undisturbed.execution.zero_stage, keep=1)
    for rank, operations in OPERATIONS.items():
        for operation in range(operations):
            outcomes = started.attempt(Kill(rank, operation, victim))
            assert outcomes[rank].exit_code in (-9, None), (operation, outcomes[rank].error)
            assert all(outcome.exit_code != 0 for outcome in outcomes), "a rank outlived the others"
    started.finish()
    assert_equal(started, undisturbed)
