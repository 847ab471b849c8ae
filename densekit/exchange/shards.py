"""A model's weights written file by file, each as soon as its tensors are there."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from densekit.files.json_files import write_json
from densekit.files.weight_files import INDEX, SINGLE
from densekit.model.tensor_files import write_tensors


class ShardWriter:
    """Writes `count` files of a folder, and the index where there are several."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.weight_map: dict[str, str] = {}
        self.size = 0
        self.written = 0

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the next file; nothing for no tensors."""
        if not tensors:
            return
        self.written += 1
        name = SINGLE
        if self.count > 1:
            name = f"model-{self.written:05d}-of-{self.count:05d}.safetensors"
        write_tensors(tensors, self.folder / name, metadata={"format": "pt"})
        self.weight_map |= dict.fromkeys(tensors, name)
        self.size += sum(value.numel() * value.element_size() for value in tensors.values())

    def finish(self) -> None:
        """Write the index."""
        assert self.written == self.count, (self.written, self.count)
        if self.count > 1:
            value = {"metadata": {"total_size": self.size}, "weight_map": self.weight_map}
            write_json(self.folder / INDEX, value)
