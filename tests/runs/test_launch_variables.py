"""Variables of other launchers: which go, which stay, and when a process is no rank of its run."""

import os
from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.runs.launch_variables import SET_BY_TORCHRUN, clear_for, clear_inherited
from densekit.spec.execution import Execution

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
NEVER = (
    "ACCELERATE_MIXED_PRECISION",
    "DS_BUILD_OPS",
    "PMI_SIZE",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE",
    "PET_NNODES",
    "SM_HP_MP_PARAMETERS",
)
STAY = ("DS_ACCELERATOR", "SLURM_JOB_ID", "OMP_NUM_THREADS", "NCCL_DEBUG", "PATH")


def test_one_rank_keeps_nothing_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    variables = dict.fromkeys([*RANKS, *NEVER, *STAY], "1")
    assert clear_inherited(variables, keep_ranks=False) == sorted([*RANKS, *NEVER])
    assert sorted(variables) == sorted(STAY)
    said = capsys.readouterr().err
    assert all(name in said for name in (*RANKS, *NEVER)) and "SLURM" not in said


def test_rank_of_torchrun_keeps_what_torchrun_set(capsys: pytest.CaptureFixture[str]) -> None:
    variables = dict.fromkeys([*RANKS, *NEVER], "1")
    assert clear_inherited(variables, keep_ranks=True) == sorted(NEVER)
    assert sorted(variables) == sorted(RANKS)
    assert capsys.readouterr().err == "", "only rank 0 says it"


def test_run_of_one_process_forgets_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    clear_for(Path("run"), Execution())
    assert not {"RANK", "WORLD_SIZE"} & {*os.environ}


@pytest.mark.parametrize(
    ("missing", "size", "message"),
    [
        ("TORCHELASTIC_RUN_ID", "2", r"is planned for 2 ranks of torchrun.*TORCHELASTIC_RUN_ID"),
        ("RANK", "2", r"RANK not set.*torchrun --standalone --nproc-per-node 2 -m densekit train"),
        (None, "4", r"WORLD_SIZE=4 is set, but run is planned for 2 ranks"),
    ],
)
def test_process_that_would_wait_for_ranks_is_refused(
    monkeypatch: pytest.MonkeyPatch, missing: str | None, size: str, message: str
) -> None:
    """A pod sets RANK, WORLD_SIZE and MASTER_* for itself; the other rank never comes."""
    for name in SET_BY_TORCHRUN:
        monkeypatch.setenv(name, size)
    if missing:
        monkeypatch.delenv(missing)
    with pytest.raises(UsageError, match=message):
        clear_for(Path("run"), Execution(world_size=2))
