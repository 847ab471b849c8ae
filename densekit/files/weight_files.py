"""The weight files of a model's folder: which there are, and what their headers say, without torch.

Only safetensors files inside the folder count: a pickle runs code when it is read, and an index may
name anything.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError
from densekit.files.pickle_files import CONVERSION, OPEN_CLIP_SAFETENSORS, has_pickled_weights
from densekit.files.safetensors_header import TensorEntry, read_header
from densekit.files.weight_index import read_weight_index

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights, as safetensors names them."""
NAMED = 5
"""Of the tensors or files with the same kind of fault, so many are named."""
Kinds = Sequence[tuple[str, str]]
"""(what it is, pattern that its tensors' names contain)."""
BUFFERS: Kinds = (
    ("rotary tables (inv_freq), computed anew", r"rotary_emb\.inv_freq$"),
    ("position ids, computed anew", r"(^|\.)position_ids$"),
    ("causal masks, computed anew", r"\.(attn|attention)\.(masked_)?bias$"),
)
"""Of old checkpoints, which kept buffers."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor of a folder."""

    file: Path
    entry: TensorEntry


def read_weight_files(
    folder: Path, *, single: str = SINGLE
) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a model's folder by name, as far as its files can be read; and everything that
    is wrong with them, each with what to do. `single`: the file of one that has no index.

    A tensor that is there twice is wrong, since transformers takes either one, and so are numbers
    that are no weights without their scales.
    """
    problems: list[str] = []
    if (folder / ADAPTER).is_file():
        problems.append(
            f"{folder} holds a LoRA adapter ({ADAPTER}), which transformers would load in place of "
            "the model: merge it into the model first"
        )
    tensors: dict[str, StoredTensor] = {}
    twice: list[str] = []
    for name, wanted in _files(folder, problems, single).items():
        path = folder / name
        try:
            header = read_header(path)
        except (DataError, OSError) as error:
            problems.append(str(error))
            continue
        twice += [
            f"{tensor} in {tensors[tensor].file.name} and {name}"
            for tensor in header
            if tensor in tensors
        ]
        tensors |= {tensor: StoredTensor(file=path, entry=header[tensor]) for tensor in header}
        if lacking := [tensor for tensor in wanted if tensor not in header]:
            problems.append(
                f"{path} lacks {few(lacking)}, which {INDEX} says are in it; download the folder "
                "again"
            )
    prefixes = {name.partition(".")[0] for name in tensors}
    twice += [
        f"{name} and {prefix}.{name}"
        for name in tensors
        for prefix in prefixes
        if f"{prefix}.{name}" in tensors
    ]
    if twice:
        problems.append(
            f"{folder} holds {few(twice)}: which one counts is not said; download the folder again"
        )
    other = [
        f"{name} is {tensor.entry.dtype} in {tensor.file.name}"
        for name, tensor in tensors.items()
        if tensor.entry.dtype not in FLOATS and kind_of(name, BUFFERS) is None
    ]
    if other:
        problems.append(
            f"{folder}: {few(other)}: weights are one of {', '.join(FLOATS)}; name the folder of "
            "the model that these were made from"
        )
    return tensors, problems


def kind_of(name: str, kinds: Kinds) -> str | None:
    """Which of `kinds` a tensor is, by its name."""
    return next((kind for kind, pattern in kinds if re.search(pattern, name)), None)


def few(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _files(folder: Path, problems: list[str], single: str) -> Mapping[str, list[str]]:
    """Weight files of a folder, and the tensors that its index says each has; {} where there are
    none that can be used.
    """
    if (folder / INDEX).exists():
        try:
            return _indexed(folder, problems)
        except DataError as error:
            problems.append(str(error))
            return {}
    if (folder / single).is_file():
        return {single: []}
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    pickles = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt*")])
    converted = has_pickled_weights(folder) and (folder / CONVERSION).exists()
    if converted and not (folder / OPEN_CLIP_SAFETENSORS).exists():
        problems.append(
            f"{folder} was being converted when the conversion was killed: run "
            f"`{_convert(folder)}` again"
        )
    elif others:
        problems.append(
            f"{folder} holds {few(others)} but neither {SINGLE} nor {INDEX}; finish the download"
        )
    elif has_pickled_weights(folder):
        problems.append(
            f"{folder} holds no .safetensors weights, only {few(pickles)} (no pickle is read); "
            f"convert them with `{_convert(folder)}`, or download a revision with safetensors "
            "(some repositories of the hub have it as a pull request: `hf download REPOSITORY "
            "--revision refs/pr/N`)"
        )
    elif pickles:
        problems.append(
            f"{folder} holds no .safetensors weights, only {few(pickles)} (no pickle is read, and "
            "these are not named as a model's weights are); download the model's folder"
        )
    else:
        problems.append(
            f"{folder} holds no .safetensors weights; convert or download them (no pickle is read)"
        )
    return {}


def _convert(folder: Path) -> str:
    return shlex.join(["densekit", "convert", str(folder)])


def _indexed(folder: Path, problems: list[str]) -> Mapping[str, list[str]]:
    files = read_weight_index(folder / INDEX, ".safetensors")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        problems.append(f"{folder} lacks {few(missing)}; finish the download")
    elif (folder / SINGLE).is_file() and SINGLE not in files:
        problems.append(
            f"{folder} holds {SINGLE} beside {INDEX} and its files, and transformers reads "
            f"{SINGLE} alone; remove the ones that are not the model's"
        )
    return {name: tensors for name, tensors in files.items() if name not in missing}
