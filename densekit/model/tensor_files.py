"""Tensors into a safetensors file that is hashed while it is written, without a second copy of them
in host RAM.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from densekit.files.safetensors_writer import Layout, Written, write_safetensors

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls each type of torch."""


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    metadata: Mapping[str, str],
    proceed: Callable[[], None] = lambda: None,
) -> Written:
    """Write tensors of the CPU; one that is not contiguous is copied while it is written. Raises as
    write_safetensors.
    """
    layouts = {
        name: Layout(dtype=NAMES[tensor.dtype], shape=tuple(tensor.shape))
        for name, tensor in tensors.items()
    }

    def data(name: str) -> memoryview:
        return _flat_bytes(tensors[name]).numpy().data

    return write_safetensors(path, layouts, data, metadata=metadata, proceed=proceed)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes in the order of their indices."""
    return torch.equal(_flat_bytes(one), _flat_bytes(other))


def _flat_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
