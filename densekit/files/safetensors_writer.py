"""Writing a safetensors file tensor by tensor, hashed on the way to the disk.

The bytes are those that safetensors' own writer makes of the same tensors. That one needs all of
them as bytes at once, a second copy in host RAM, and the file would have to be read again for its
hash.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

WIDTHS = {
    **{"U64": 8, "I64": 8, "F64": 8, "C64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2},
    **{"U16": 2, "I16": 2, "F8_E8M0": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1},
}
"""Bytes of one value. The order is that of tensors in a file: the widest values lie first, so that
all are aligned.
"""
ORDER = {dtype: place for place, dtype in enumerate(WIDTHS)}
CHUNK = 4 << 20
"""Bytes that are hashed and then written while they are in the CPU's cache."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the header says of one tensor."""

    dtype: str
    """As safetensors names it: F32."""
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file as it was sent to the disk."""

    sha256: str
    bytes: int


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Layout],
    data: Callable[[str], memoryview | Iterable[memoryview]],
    *,
    metadata: Mapping[str, str],
    proceed: Callable[[], None] = lambda: None,
) -> Written:
    """Write `tensors` to a file, their bytes fetched by name from `data`, one tensor at a time,
    whole or in pieces; not yet forced to disk.

    `proceed` is called before each chunk, and ends the writing by raising. Raises OSError when
    the file cannot be written, ValueError when `data` gives a tensor of another size.
    """
    digest, total = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in _chunks(tensors, data, metadata):
            proceed()
            digest.update(chunk)
            file.write(chunk)
            total += len(chunk)
    return Written(sha256=digest.hexdigest(), bytes=total)


def _chunks(
    tensors: Mapping[str, Layout],
    data: Callable[[str], memoryview | Iterable[memoryview]],
    metadata: Mapping[str, str],
) -> Iterable[bytes | memoryview]:
    names = sorted(tensors, key=lambda name: (ORDER[tensors[name].dtype], name))
    yield _header(names, tensors, metadata)
    for name in names:
        values, size = data(name), 0
        for piece in [values] if isinstance(values, memoryview) else values:
            size += piece.nbytes
            if size > tensors[name].bytes:
                break
            for start in range(0, piece.nbytes, CHUNK):
                yield piece[start : start + CHUNK]
        if size != tensors[name].bytes:
            raise ValueError(f"{name} has {size} bytes, not {tensors[name].bytes}")


def _header(
    names: Iterable[str], tensors: Mapping[str, Layout], metadata: Mapping[str, str]
) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].bytes
        entries[name] = {
            "dtype": tensors[name].dtype,
            "shape": [*tensors[name].shape],
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
