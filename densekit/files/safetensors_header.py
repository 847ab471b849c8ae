"""The header of a safetensors file: names, dtypes, shapes and places of its tensors, without torch
and without reading the tensors.

safetensors' own numpy reader refuses bf16 and fp8, which numpy lacks, and its torch reader would
bring torch into the driver.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.files.json_files import parse_json
from densekit.files.regular import open_regular

MAX_HEADER = 100_000_000  # the format's own limit
WIDTHS = (0, 1, 2, 4, 8, 16)  # bytes of one value (0: no values)
_LENGTH = 8  # bytes of the header's length, in front of it
_CONVERT = (
    "which is never read; rename it to pytorch_model.bin, then run `densekit convert` on its folder"
)
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file; run `git lfs pull` there",
    b"<!doctype": "a web page, not the file; download it again",
    b"<html": "a web page, not the file; download it again",
    b"PK\x03\x04": f"a pickle in a zip archive (torch.save), {_CONVERT}",
    b"\x80\x02": f"a pickle, {_CONVERT}",
    b"GGUF": "a GGUF file; download the weights in transformers format",
}
"""How files begin that are found in the place of weights."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor of a file; `start` and `end` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Tensors by name, in the order of their bytes.

    Raises DataError when the file is no complete safetensors file, naming what it is instead where
    that can be seen; OSError when it cannot be read.
    """
    with open_regular(path) as file:
        total = path.stat().st_size
        start = file.read(_LENGTH)
        length = int.from_bytes(start, "little")
        text = file.read(length) if length <= min(total - _LENGTH, MAX_HEADER) else b""
        if not text:
            start += file.read(64)
    if other := stands_for(start):
        raise DataError(f"{path} is {other}")
    if total == 0:
        raise DataError(
            f"{path} is not a complete safetensors file: it is empty; download it again"
        )
    try:
        entries = {
            name: value for name, value in parse_json(text).items() if name != "__metadata__"
        }
        tensors = {name: _tensor(value, _LENGTH + length) for name, value in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError):
        raise DataError(
            f"{path} is not a complete safetensors file: its header does not fit its bytes"
        ) from None
    end = max((tensor.end for tensor in tensors.values()), default=_LENGTH + length)
    if end != total:
        raise DataError(
            f"{path} is not a complete safetensors file: it has {total} bytes, its header says "
            f"{end}; download it again"
        )
    return dict(sorted(tensors.items(), key=lambda item: item[1].start))


def stands_for(start: bytes) -> str | None:
    """What a file is that begins so and was put in the place of weights, in words that follow "is",
    with what to do; None for anything else.
    """
    lower = start.lower()
    return next((what for sign, what in _OTHERS.items() if lower.startswith(sign.lower())), None)


def _tensor(entry: Any, offset: int) -> TensorEntry:
    shape = tuple(int(size) for size in entry["shape"])
    start, end = (offset + int(place) for place in entry["data_offsets"])
    width, rest = divmod(end - start, max(math.prod(shape), 1))
    if not offset <= start <= end or rest or width not in WIDTHS or min(shape, default=0) < 0:
        raise ValueError(entry)
    return TensorEntry(dtype=str(entry["dtype"]), shape=shape, start=start, end=end)
