"""Small objects between ranks, and the end of the process group."""

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def gather_objects(value: T) -> list[T]:
    """`value` of every rank, in rank order, on every rank; [value] in a single process."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [value]
    everyone: list[T | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, value)
    return everyone  # type: ignore[return-value]


def end_process_group() -> None:
    """Leave the process group once nothing more is to be sent; every rank calls it before it exits.

    gloo frees the tensors of a collective in a thread of its own, a moment after the collective is
    over, and takes Python's lock for one that Python has seen. If the interpreter ends in that
    moment, the process dies with SIGABRT ("terminate called without an active exception": pytorch
    issue 190489, pull request 179291). Leaving the group waits for that thread. Not for a rank that
    failed: its peers may be in a collective, and this would wait for them.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
