"""The index of weights in several files: which file holds which tensors."""

import re
from pathlib import Path

from densekit.errors import DataError
from densekit.files.json_files import read_object


def read_weight_index(path: Path, suffix: str) -> dict[str, list[str]]:
    """The tensors of each file that an index names. Raises DataError for one that cannot be read or
    names anything but files of its folder that end in `suffix`.
    """
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{path}: `weight_map` must be an object of tensors and their files")
    files: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not re.fullmatch(rf"[^/\\\0]+{re.escape(suffix)}", name):
            raise DataError(
                f"{path} puts {tensor[:80]} into {str(name)[:80]}: only {suffix} files inside the "
                "folder are read; download the folder again"
            )
        files.setdefault(name, []).append(tensor)
    return files
