"""The tensors of a trained model for an export: types, merged adapters, file by file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.exchange.adapter import merged
from densekit.exchange.official.tensors import EMBEDDING
from densekit.exchange.source import Source
from densekit.exchange.weight_file import WeightFile, open_weights
from densekit.files.safetensors_writer import Layout
from densekit.files.weight_files import BUFFERS, kind_of, read_weight_files
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.tensor_files import NAMES
from densekit.spec.types import Dtype

TOWER = "vision_model."
OWN_TOWER = "vision_tower.model."
"""How densekit's own folder of a full model names the tower's tensors."""
ROWS = (EMBEDDING, "lm_head.weight")
"""Tensors with a row for each token."""
TYPES = {name: dtype for dtype, name in NAMES.items()}
Fetch = Callable[[str], Tensor]


@dataclass(frozen=True, kw_only=True)
class LanguageModelFile:
    """One file of the language model, as it is exported."""

    file: WeightFile
    names: Mapping[str, str]
    layouts: Mapping[str, Layout]
    """By name in the model."""


class LanguageModel:
    """The language model's tensors, with adapters merged where that is asked for.

    Merging computes in fp32, and in fp16 where fp16 is asked for, as the official loader does.
    """

    def __init__(self, source: Source, *, merge: bool, dtype: Dtype | None) -> None:
        self.source = source
        self.adapter = source.adapter if merge else None
        self.low = self.adapter.read() if self.adapter else {}
        if self.adapter is not None:
            shapes = {name: shape for name, (_, shape) in source.shapes.items()}
            self.adapter.check(shapes, source.path)
        self.sum_dtype = torch.float16 if dtype == "fp16" else torch.float32
        self.dtype = TORCH_DTYPES[dtype] if dtype else torch.float32 if self.adapter else None

    def files(self) -> list[LanguageModelFile]:
        """Every file and the layout of its tensors."""
        return [
            LanguageModelFile(
                file=file,
                names=names,
                layouts={
                    name: self._layout(*file.shapes[inside]) for name, inside in names.items()
                },
            )
            for file, names in self.source.files
        ]

    @contextmanager
    def opened(self, part: LanguageModelFile) -> Iterator[Fetch]:
        """What gives a tensor of a file by its name in the model."""
        with part.file.opened() as fetch:

            def tensor(name: str) -> Tensor:
                value = fetch(part.names[name])
                if self.adapter is not None and name in self.low:
                    value = merged(value, self.low[name], self.adapter.scale, self.sum_dtype)
                return value if self.dtype is None else value.to(self.dtype)

            yield tensor

    def _layout(self, dtype: str, shape: tuple[int, ...]) -> Layout:
        return Layout(dtype=NAMES[self.dtype] if self.dtype else dtype, shape=shape)


def tower_tensors(folder: Path) -> dict[str, Tensor]:
    """The vision model's own tensors of a tower's folder, named `vision_model.*`; a whole CLIP or
    SigLIP model's text part is left out. Raises DataError where they cannot be read.
    """
    tensors, problems = read_weight_files(folder)
    if problems:
        raise DataError(f"vision tower: {'; '.join(problems)}")
    prefixed = any(name.startswith(TOWER) for name in tensors)
    found: dict[str, Tensor] = {}
    for path in sorted({each.file for each in tensors.values()}):
        file = open_weights(path)
        names = [
            name
            for name in file.shapes
            if (name.startswith(TOWER) or not prefixed) and kind_of(name, BUFFERS) is None
        ]
        found |= {
            name if prefixed else f"{TOWER}{name}": value
            for name, value in file.read(names).items()
        }
    return found


def tower_of(source: Source) -> dict[str, Tensor]:
    """The tensors of a model's tower, named `vision_model.*`: those of its folder, and in their
    place what was trained, all in the type of that.
    """
    tensors = tower_tensors(source.tower)
    if not source.tower_trained:
        return tensors
    assert source.whole is not None
    trained = trained_tower(source.whole)
    dtype = next(iter(trained.values())).dtype
    own = {TOWER + name.removeprefix(TOWER): value for name, value in trained.items()}
    return {name: value.to(dtype) for name, value in tensors.items()} | own


def trained_tower(whole: Path) -> dict[str, Tensor]:
    """The tower's tensors in densekit's own folder of a full model, by their names in the tower."""
    tensors, _ = read_weight_files(whole)
    found: dict[str, Tensor] = {}
    for path in sorted({each.file for each in tensors.values()}):
        file = open_weights(path)
        names = [name for name in file.shapes if name.startswith(OWN_TOWER)]
        found |= {n.removeprefix(OWN_TOWER): v for n, v in file.read(names).items()}
    return {name: value for name, value in found.items() if kind_of(name, BUFFERS) is None}


def layouts_of(tensors: Mapping[str, Tensor]) -> dict[str, Layout]:
    """What a file's header says of tensors in memory."""
    return {
        name: Layout(dtype=NAMES[value.dtype], shape=tuple(value.shape))
        for name, value in tensors.items()
    }


def cast(tensors: Mapping[str, Tensor], dtype: Dtype | None) -> dict[str, Tensor]:
    """The same values in the type that was asked for, if any."""
    return {n: value.to(TORCH_DTYPES[dtype]) if dtype else value for n, value in tensors.items()}
