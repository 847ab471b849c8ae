"""What ranks ask of each other in one optimizer step, by engine: nothing that grows with the ranks,
and with the micro-batches only what ZeRO does in each.
"""

import pytest
from collectives import ENGINES, Counted, count

from tests.support.ranks import run_ranks

pytestmark = pytest.mark.ranks

STEP = {
    "ddp": {"allgather": 1, "allreduce": 4},
    "zero2": {"allgather": 1, "allreduce": 2, "allgather_base": 1},
    "zero3": {"allgather": 1, "allreduce": 2, "allgather_base": 9},
}
"""A step: the feed (allgather), and of allreduce the loss, ZeRO's gradient norm, and DDP's two
buckets and its list of unused parameters. ZeRO-2 gathers what was updated; ZeRO-3 that of each
parameter that it keeps whole, here seven norms and the projector's two biases.
"""
MICRO_BATCH = {
    "ddp": {},
    "zero2": {"allreduce": 1},
    "zero3": {"allgather_base": 1, "reduce_scatter_base": 1},
}
"""And for each micro-batch: gradients, by ZeRO-3 also the weights of the one module that it makes
of a model of this size.
"""


def counted(engine: str, world_size: int, micro_batches: int) -> Counted:
    found: Counted = run_ranks(1, count, engine, world_size, micro_batches)[0].returned
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_collectives_of_a_step_are_bounded(engine: str) -> None:
    few, many = counted(engine, 4, 1), counted(engine, 64, 3)
    for found, micro_batches in ((few, 1), (many, 3)):
        names = STEP[engine].keys() | MICRO_BATCH[engine].keys()
        assert found.calls == {
            name: STEP[engine].get(name, 0) + micro_batches * MICRO_BATCH[engine].get(name, 0)
            for name in names
        }
    # One row of the feed for each sample, and one of flags for each rank.
    assert few.bytes["allgather"] == 4 * (2 + 1) * 5 * 8
    assert many.bytes["allgather"] == 64 * (6 + 1) * 5 * 8


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_that_are_there_ask_the_same(engine: str) -> None:
    (real, other), alone = run_ranks(2, count, engine, 2, 2, fake=False), counted(engine, 2, 2)
    assert real.returned.calls == other.returned.calls == alone.calls
    assert real.returned.bytes == alone.bytes
