"""A model's weights written file by file, and within a file tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from densekit.files.json_files import write_json
from densekit.files.safetensors_writer import Layout, write_safetensors
from densekit.files.weight_files import INDEX, SINGLE
from densekit.model.tensor_files import NAMES

TYPES = {name: dtype for dtype, name in NAMES.items()}
PIECE = 1 << 22
"""Values that are cast at once: a whole embedding in fp32 may be larger than its file."""


class ShardWriter:
    """Writes `count` files of a folder, and the index where there are several."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.weight_map: dict[str, str] = {}
        self.size = 0
        self.written = 0

    def add(self, layouts: Mapping[str, Layout], fetch: Callable[[str], Tensor]) -> None:
        """Write the next file, each tensor fetched when its turn comes and cast piece by piece to
        the type of its layout; nothing for no tensors.
        """
        if not layouts:
            return
        self.written += 1
        name = SINGLE
        if self.count > 1:
            name = f"model-{self.written:05d}-of-{self.count:05d}.safetensors"

        def data(tensor: str) -> Iterator[memoryview]:
            dtype = TYPES[layouts[tensor].dtype]
            for piece in fetch(tensor).detach().contiguous().reshape(-1).split(PIECE):
                yield piece.to(dtype).view(torch.uint8).numpy().data

        write_safetensors(self.folder / name, layouts, data, metadata={"format": "pt"})
        self.weight_map |= dict.fromkeys(layouts, name)
        self.size += sum(layout.bytes for layout in layouts.values())

    def finish(self) -> None:
        """Write the index."""
        assert self.written == self.count, (self.written, self.count)
        if self.count > 1:
            value = {"metadata": {"total_size": self.size}, "weight_map": self.weight_map}
            write_json(self.folder / INDEX, value)
