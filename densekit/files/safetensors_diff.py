"""Which tensor of two safetensors files differs first, and in how many values.

The header is parsed here and the bytes are compared through memory maps: safetensors' own numpy
reader refuses bf16 and fp8, which numpy lacks, its torch reader would bring torch into the driver,
and both copy what may be larger than memory.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densekit.errors import DataError
from densekit.files.json_files import parse_json
from densekit.files.regular import open_regular

CHUNK = 1 << 26  # bytes compared at a time, so that files larger than memory can be
MAX_HEADER = 100_000_000  # the format's own limit
WIDTHS = (0, 1, 2, 4, 8, 16)  # bytes of one value (0: no values)

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


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def first_tensor_difference(a: Path, b: Path) -> TensorDifference | None:
    """Compare two safetensors files bit by bit; None when every tensor is equal (the files' notes
    may differ).

    Raises DataError when a file is no safetensors file, OSError when it cannot be read.
    """
    one, two = _header(a), _header(b)
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


def _header(path: Path) -> dict[str, _Tensor]:
    """Tensors by name, in the order of their bytes; offsets count from the start of the file."""
    with open_regular(path) as file:
        total = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(total - 8, MAX_HEADER) else b""
    try:
        entries = {
            name: value for name, value in parse_json(text).items() if name != "__metadata__"
        }
        tensors = {name: _tensor(value, 8 + length, total) for name, value in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError):
        raise DataError(
            f"{path} is not a complete safetensors file: its header does not fit its bytes"
        ) from None
    return dict(sorted(tensors.items(), key=lambda item: item[1].start))


def _tensor(entry: Any, offset: int, total: int) -> _Tensor:
    shape = tuple(int(size) for size in entry["shape"])
    start, end = (offset + int(place) for place in entry["data_offsets"])
    width, rest = divmod(end - start, max(math.prod(shape), 1))
    if not offset <= start <= end <= total or rest or width not in WIDTHS:
        raise ValueError(entry)
    return _Tensor(dtype=str(entry["dtype"]), shape=shape, start=start, end=end)


def _equal(a: _Tensor | None, b: _Tensor | None, data: Data) -> bool:
    if (
        a is None
        or b is None
        or (a.dtype, a.shape, a.end - a.start) != (b.dtype, b.shape, b.end - b.start)
    ):
        return False
    return all(np.array_equal(one, two) for one, two in _chunks(a, b, data))


def _count(a: _Tensor, b: _Tensor, data: Data) -> int:
    """Values in which at least one byte differs."""
    width = (a.end - a.start) // max(math.prod(a.shape), 1)
    return sum(
        int(np.any((one != two).reshape(-1, width), axis=1).sum())
        for one, two in _chunks(a, b, data)
        if len(one)
    )


def _chunks(
    a: _Tensor, b: _Tensor, data: Data
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
