"""Which tensor of two safetensors files differs first, and in how many values.

The bytes are compared through memory maps: safetensors' own readers copy what may be larger than
memory.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densekit.files.safetensors_header import TensorEntry, read_header

CHUNK = 1 << 26  # bytes compared at a time, so that files larger than memory can be

Data = list[npt.NDArray[np.uint8]]  # the bytes of both files


@dataclass(frozen=True, kw_only=True)
class TensorDifference:
    """The first tensor (in the order of its bytes in the first file) that differs between two
    files.
    """

    name: str
    values: int | None
    """Values that differ in at least one bit; None when dtype or shape differ or one file lacks the
    tensor, and `reason` says so.
    """
    size: int
    """Values it has."""
    reason: str
    others: int
    """Further tensors that differ."""

    def describe(self) -> str:
        """One phrase for people."""
        count = (
            self.reason if self.values is None else f"{self.values} of {self.size} values differ"
        )
        others = f"{self.others} other tensor{'' if self.others == 1 else 's'}"
        more = f"; {others} differ{'s' if self.others == 1 else ''} too" if self.others else ""
        return f"tensor {self.name}: {count}{more}"


def first_tensor_difference(a: Path, b: Path) -> TensorDifference | None:
    """Compare two safetensors files bit by bit; None when every tensor is equal (the files' notes
    may differ).

    Raises DataError when a file is no safetensors file, OSError when it cannot be read.
    """
    one, two = read_header(a), read_header(b)
    data: Data = [np.memmap(path, dtype=np.uint8, mode="r") for path in (a, b)]
    names = [*one, *(name for name in two if name not in one)]
    differing = [name for name in names if not _equal(one.get(name), two.get(name), data)]
    if not differing:
        return None
    name = differing[0]
    first, second = one.get(name), two.get(name)
    size = math.prod((first or two[name]).shape)
    values, reason = None, ""
    if first is None or second is None:
        reason = f"only in {a if second is None else b}"
    elif (first.dtype, first.shape) != (second.dtype, second.shape):
        reason = f"{first.dtype} {list(first.shape)} and {second.dtype} {list(second.shape)}"
    else:
        values = _count(first, second, data)
    return TensorDifference(
        name=name, values=values, size=size, reason=reason, others=len(differing) - 1
    )


def _equal(a: TensorEntry | None, b: TensorEntry | None, data: Data) -> bool:
    if (
        a is None
        or b is None
        or (a.dtype, a.shape, a.end - a.start) != (b.dtype, b.shape, b.end - b.start)
    ):
        return False
    return all(np.array_equal(one, two) for one, two in _chunks(a, b, data))


def _count(a: TensorEntry, b: TensorEntry, data: Data) -> int:
    """Values in which at least one byte differs."""
    width = (a.end - a.start) // max(math.prod(a.shape), 1)
    return sum(
        int(np.any((one != two).reshape(-1, width), axis=1).sum())
        for one, two in _chunks(a, b, data)
        if len(one)
    )


def _chunks(
    a: TensorEntry, b: TensorEntry, data: Data
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    # Views, not copies; CHUNK is a multiple of every width, so that no value is cut in two.
    places = range(0, a.end - a.start, CHUNK)
    return [
        (
            data[0][a.start + place : min(a.start + place + CHUNK, a.end)],
            data[1][b.start + place : min(b.start + place + CHUNK, b.end)],
        )
        for place in places
    ]
