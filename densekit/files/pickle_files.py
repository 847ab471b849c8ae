"""Which files of a published folder hold its weights as pickles: names and index alone, nothing is
read from a pickle here.

`densekit convert` reads them, in a process of the trainer's environment (exchange/).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError
from densekit.files.weight_index import read_weight_index

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SHARD = re.compile(r"pytorch_model-(\d{5})-of-(\d{5})\.bin")
OPEN_CLIP = "open_clip_pytorch_model.bin"
"""What OpenCLIP calls the file of its own repositories, ..."""
OPEN_CLIP_SAFETENSORS = "open_clip_model.safetensors"
"""... and the same as safetensors."""
CONVERSION = "conversion.json"
"""The record of a conversion (spec/conversion.py)."""
OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
"""Files that may hold weights, named where there are no weights to convert."""


@dataclass(frozen=True, kw_only=True)
class PickledWeights:
    """The weights of a folder as pickles."""

    files: Mapping[str, str]
    """Pickle -> the safetensors file that is made of it, in order."""
    tensors: Mapping[str, tuple[str, ...]] | None
    """Pickle -> the tensors that the index says are in it; None without an index."""


def has_pickled_weights(folder: Path) -> bool:
    """Whether `densekit convert` finds something to read in a folder, whole or not."""
    known = (PICKLE, PICKLE_INDEX, OPEN_CLIP)
    return any((folder / name).exists() for name in known) or bool(_shards(folder))


def pickled_weights(folder: Path) -> PickledWeights:
    """The pickles that hold the weights of a folder.

    Raises DataError when there are none, when some of them are missing, when two sets of them are
    there, or when the index names anything but files of the folder.
    """
    if (folder / PICKLE_INDEX).exists():
        found = _indexed(folder)
        if (folder / PICKLE).exists() and PICKLE not in found:
            raise DataError(
                f"{folder} holds {PICKLE} beside {PICKLE_INDEX} and its files: remove the ones "
                "that are not the model's"
            )
        return PickledWeights(files=_numbered(sorted(found)), tensors=found)
    if (folder / PICKLE).exists():
        if shards := _shards(folder):
            raise DataError(
                f"{folder} holds {PICKLE} beside {shards[0]}: remove the ones that are not the "
                "model's"
            )
        return PickledWeights(files=_numbered([PICKLE]), tensors=None)
    if shards := _shards(folder):
        return PickledWeights(files=_numbered(_complete(folder, shards)), tensors=None)
    if (folder / OPEN_CLIP).exists():
        return PickledWeights(files={OPEN_CLIP: OPEN_CLIP_SAFETENSORS}, tensors=None)
    there = sorted({path.name for pattern in OTHERS for path in folder.glob(pattern)})
    besides = f"; it holds {', '.join(there[:5])}, which are none" if there else ""
    raise DataError(
        f"{folder} holds no weights to convert: neither {PICKLE} nor {PICKLE_INDEX} with its files "
        f"nor {OPEN_CLIP}{besides}; download the folder of a model"
    )


def _numbered(names: list[str]) -> dict[str, str]:
    """The safetensors file of each pickle, named as transformers does."""
    if len(names) == 1:
        return {names[0]: "model.safetensors"}
    return {
        name: f"model-{number:05d}-of-{len(names):05d}.safetensors"
        for number, name in enumerate(names, start=1)
    }


def _shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.bin") if SHARD.fullmatch(path.name))


def _complete(folder: Path, shards: list[str]) -> list[str]:
    """Shards without an index, when all of them are there by their own numbers."""
    numbers = [match.groups() for name in shards if (match := SHARD.fullmatch(name))]
    total = int(numbers[0][1])
    if [int(number) for number, _ in numbers] != list(range(1, total + 1)):
        raise DataError(
            f"{folder} holds {len(shards)} of {total} files pytorch_model-*-of-{total:05d}.bin: "
            "finish the download"
        )
    return shards


def _indexed(folder: Path) -> dict[str, tuple[str, ...]]:
    files = read_weight_index(folder / PICKLE_INDEX, ".bin")
    if missing := sorted(name for name in files if not (folder / name).is_file()):
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise DataError(
            f"{folder} lacks {missing[0]}{more}, which {PICKLE_INDEX} names: finish the download"
        )
    return {name: tuple(tensors) for name, tensors in files.items()}
