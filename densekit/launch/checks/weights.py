"""Whether the weights in a model's folder are whole, by the headers of their files."""

from collections.abc import Mapping
from pathlib import Path

from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.files.safetensors_header import TensorEntry, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NAMED = 5
"""Of the tensors or files that are missing, so many are named."""


def read_headers(folder: Path, field: str, problems: list[str]) -> dict[str, TensorEntry]:
    """Tensors of a model's folder by name, as far as its files can be read; what is wrong goes to
    `problems`.

    Only safetensors files inside the folder count: a pickle runs code when it is read, and an index
    may name anything.
    """
    names = _files(folder, field, problems)
    tensors: dict[str, TensorEntry] = {}
    for name, wanted in names.items():
        try:
            header = read_header(folder / name)
        except (DataError, OSError) as error:
            problems.append(f"{field}: {error}")
            continue
        if again := sorted(tensors.keys() & header.keys()):
            problems.append(
                f"{field}: {folder / name} holds {_few(again)}, which another file of the folder "
                "holds too; download the folder again"
            )
        tensors |= header
        if lacking := [tensor for tensor in wanted if tensor not in header]:
            problems.append(
                f"{field}: {folder / name} lacks {_few(lacking)}, which {INDEX} says are in it; "
                "download the folder again"
            )
    return tensors


def _files(folder: Path, field: str, problems: list[str]) -> Mapping[str, list[str]]:
    """Weight files of a folder, and the tensors that its index says each has; {} where there are
    none that can be used.
    """
    if (folder / INDEX).exists():
        try:
            return _indexed(folder, field, problems)
        except DataError as error:
            problems.append(f"{field}: {error}")
            return {}
    if (folder / SINGLE).is_file():
        return {SINGLE: []}
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    pickles = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt*")])
    if others:
        problems.append(
            f"{field}: {folder} holds {_few(others)} but neither {SINGLE} nor {INDEX}; finish the "
            "download"
        )
    elif pickles:
        problems.append(
            f"{field}: {folder} holds no .safetensors weights, only {_few(pickles)} (no pickle is "
            "read); download a revision with safetensors (some repositories of the hub have it as "
            "a pull request: `hf download REPOSITORY --revision refs/pr/N`), or convert them"
        )
    else:
        problems.append(
            f"{field}: {folder} holds no .safetensors weights; convert or download them (no pickle "
            "is read)"
        )
    return {}


def _indexed(folder: Path, field: str, problems: list[str]) -> Mapping[str, list[str]]:
    path = folder / INDEX
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{path}: `weight_map` must be an object of tensors and their files")
    files: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        if (
            not isinstance(name, str)
            or not name.endswith(".safetensors")
            or Path(name).name != name
        ):
            raise DataError(
                f"{path} puts {tensor[:80]} into {str(name)[:80]!r}: only .safetensors files "
                "inside the folder are read; download the folder again"
            )
        files.setdefault(name, []).append(tensor)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        problems.append(f"{field}: {folder} lacks {_few(missing)}; finish the download")
    elif (folder / SINGLE).is_file() and SINGLE not in files:
        problems.append(
            f"{field}: {folder} holds {SINGLE} beside {INDEX} and its files, and transformers "
            f"reads {SINGLE} alone; remove the ones that are not the model's"
        )
    return {name: tensors for name, tensors in files.items() if name not in missing}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
