"""Small objects between ranks."""

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
