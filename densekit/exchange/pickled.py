"""The tensors of one file of torch.save, read without running anything that it holds.

torch.load with `weights_only=True` builds tensors, numbers, strings and containers and nothing
else. The files of torch.save since 1.6 are mapped into memory, older ones are read.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from densekit.errors import DataError
from densekit.files.regular import open_regular
from densekit.files.safetensors_header import stands_for
from densekit.files.weight_files import few
from densekit.model.tensor_files import NAMES

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
"""Keys under which training code puts the weights, beside an epoch or an optimizer."""
PARALLEL = "module."
"""What DataParallel and DDP put before each name, as OpenCLIP's and timm's readers drop it."""
SMALL = 64 << 20
"""Bytes that a tensor may repeat of what its file stores (a mask made by `expand`)."""
AGAIN = "download the file again"


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """What one file holds."""

    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    """Everything that is no weight, by its key."""
    prefix: str
    """Removed from all names; empty where they had none in common."""


def read_pickled(path: Path) -> Pickled:
    """The tensors of a file, by name, on the CPU.

    Raises DataError, with the file and what to do, for one that is cut off or no file of
    torch.save, that needs code to be read, whose weights cannot be told from the rest, or that
    holds a tensor of a kind that safetensors lacks.
    """
    tensors, left_out = _weights(_loaded(path), path)
    prefix = PARALLEL if all(name.startswith(PARALLEL) for name in tensors) else ""
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    for name, tensor in named.items():
        if (problem := _unfit(tensor)) is not None:
            raise DataError(f"{path}: {name[:80]} is {problem}; {_OTHER_WEIGHTS}")
    return Pickled(tensors=named, left_out=left_out, prefix=prefix)


def same_memory(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of names that are one and the same tensor."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            groups.setdefault(place, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


_OTHER_WEIGHTS = "use a folder with the model's plain weights, or one with safetensors"


def _loaded(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not start.strip(b"\0"):
        raise DataError(f"{path} is {'full of zeros' if start else 'empty'}: {AGAIN}")
    if not start.startswith((ZIP, PICKLE)):
        raise DataError(f"{path} is {stands_for(start) or f'no file of torch.save: {AGAIN}'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the way that a file was written
            return torch.load(path, "cpu", weights_only=True, mmap=start.startswith(ZIP))
    except UnpicklingError as error:
        raise DataError(_needs_code(path, str(error), zipped=start.startswith(ZIP))) from None
    except Exception as error:  # whatever torch raises for bytes that anybody may have made
        reason = " ".join(str(error).split()).partition(". ")[0][:160]
        if "TorchScript" in reason:
            raise DataError(
                f"{path} is a TorchScript program, not weights; {_OTHER_WEIGHTS}"
            ) from None
        raise DataError(
            f"{path} is cut off or damaged ({reason or type(error).__name__}): {AGAIN}"
        ) from None


def _needs_code(path: Path, message: str, *, zipped: bool) -> str:
    wanted = re.findall(r"GLOBAL (\S+)", message)
    if zipped:
        try:
            wanted = sorted(get_unsafe_globals_in_checkpoint(path)) or wanted
        except Exception:  # as above: what the first message named has to do
            wanted = wanted[:1]
    if not wanted:
        return f"{path} is no file of torch.save, or a damaged one: {AGAIN}"
    return (
        f"{path} needs code to be read, which is never run: it asks for {few(wanted)}; "
        f"{_OTHER_WEIGHTS}"
    )


def _weights(value: Any, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a loaded value, out of what they are wrapped in; and everything else."""
    left_out: list[str] = []
    while True:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise DataError(
                f"{path} holds a {type(value).__name__}, not tensors by name; {_OTHER_WEIGHTS}"
            )
        tensors = {key: item for key, item in value.items() if isinstance(item, Tensor)}
        others = {key: item for key, item in value.items() if key not in tensors}
        if tensors:
            if deeper := [key for key, item in others.items() if _holds_tensors(item)]:
                raise DataError(
                    f"{path} holds tensors by name and others inside {few(deeper)}: which are the "
                    f"weights is not said; {_OTHER_WEIGHTS}"
                )
            return tensors, (*left_out, *others)
        found = [key for key in WRAPPERS if isinstance(others.get(key), Mapping)]
        if len(found) != 1:
            keys = few([str(key)[:40] for key in others]) or "nothing"
            raise DataError(
                f"{path} holds {keys} and no tensor among them"
                + (f"; {' and '.join(found)} may both be the weights" if found else "")
                + f"; {_OTHER_WEIGHTS}"
            )
        left_out += [key for key in others if key != found[0]]
        value = others[found[0]]


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        return any(isinstance(item, Tensor) or _holds_tensors(item) for item in value)
    return False


def _unfit(tensor: Tensor) -> str | None:
    """Why a tensor cannot be stored bit for bit; None where it can."""
    if tensor.is_quantized or tensor.dtype not in NAMES:
        return (
            f"of type {str(tensor.dtype).removeprefix('torch.')}, which safetensors does not have"
        )
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_meta:
        return "a tensor without values (on the meta device)"
    size = tensor.numel() * tensor.element_size()
    if size > max(tensor.untyped_storage().nbytes(), SMALL):
        return f"{size} bytes, of which the file holds {tensor.untyped_storage().nbytes()}"
    return None
