"""Kill anywhere: SIGKILL after each file operation of a save; the resumed run ends in the very same weights."""

from pathlib import Path

import pytest
import torch

from tests.train.conftest import Workplace
from tests.train.running import Kill, Started, Victim, start_run

# What a save of two ranks does: each writes and syncs its fragments; rank 0 then writes and syncs checkpoint.json,
# syncs the folder, renames it and syncs the folder above; from the third save on it hides the oldest (rename, sync).
OPERATIONS = {0: 9, 1: 2}
STEPS = 6


@pytest.fixture(scope="module", params=[0, 3], ids=["ddp", "zero3"])
def undisturbed(
    request: pytest.FixtureRequest, workplace: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> Started:
    started = start_run(workplace, tmp_path_factory.mktemp("undisturbed"), zero_stage=request.param)
    started.finish()
    return started


@pytest.mark.parametrize("victim", ["rank", "ranks", "parent"])
def test_every_operation_of_a_save(undisturbed: Started, workplace: Workplace, tmp_path: Path, victim: Victim) -> None:
    started = start_run(workplace, tmp_path, zero_stage=undisturbed.execution["zero_stage"])
    for rank, operations in OPERATIONS.items():
        for operation in range(operations):
            outcomes = started.attempt(Kill(rank, operation, victim))
            assert outcomes[rank].exit_code in (-9, None), (operation, outcomes[rank].error)
            assert all(outcome.exit_code != 0 for outcome in outcomes), "a rank outlived the others"
    started.finish()
    assert_equal(started, undisturbed)


def assert_equal(one: Started, other: Started) -> None:
    """The same weights to the last bit, and the same records."""
    ours, theirs = one.weights(), other.weights()
    assert ours.keys() == theirs.keys() and len(ours) > 4
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]
    for name in ("feed.jsonl", "metrics.jsonl"):
        assert _lines(one.run.path / name) == _lines(other.run.path / name)


def _lines(path: Path) -> list[str]:
    return [line.partition('"seconds"')[0] for line in path.read_text().splitlines()]
