"""What a run directory holds, as one JSON value without clock times, host names and the like."""

import hashlib
import json
import re
import struct
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tools.unchanged.checkouts import Side

VOLATILE = (
    "*/seconds",
    "manifest.json/environment",
    "manifest.json/sha256",
    "manifest.json/metrics_sha256",
    "manifest.json/outputs/results.json",
    "manifest.json/outputs/model/config.json",
    "manifest.json/*/tokenizer.model",
    "attempts/*/environment.json",
    "attempts/*/launch.json",
    "attempts/*/log.txt",
    "evaluations/*",
)
"""What tells of the clock, the machine or its packages, and hashes over files that do.

A sentencepiece model holds the path it was trained at, which is another each time.
"""


def read_runs(side: Side, runs: Path) -> dict[str, Any]:
    """Every run of a folder by recipe: the hash in the directory's name, and the files."""
    found = {}
    for run in sorted(runs.iterdir()):
        if not run.name.startswith("."):
            recipe, _, short_hash = run.name.rpartition("-")
            found[recipe] = {"short_hash": short_hash, "files": read_run(side, run)}
    return found


def read_run(side: Side, run: Path) -> dict[str, Any]:
    """The files of a run by name: JSON as it is, tensors one by one, anything else as a hash."""
    files = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and not path.name.startswith(".") and not _is_volatile(name):
            files[name] = _without_volatile(_read(side, path), name)
    return files


def read_tensors(path: Path) -> dict[str, Any]:
    """Hash of a safetensors file, and of each tensor's bytes with its type and shape."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, told in header.items():
        begin, end = (8 + length + offset for offset in told["data_offsets"])
        tensors[name] = [told["dtype"], told["shape"], _sha256(content[begin:end])]
    return {"sha256": _sha256(content), "metadata": metadata, "tensors": tensors}


def _read(side: Side, path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix == ".json":
        return json.loads(side.plain(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        lines = side.plain(path.read_text(encoding="utf-8")).splitlines()
        return [json.loads(line) for line in lines]
    within = re.compile(re.escape(str(side.top).encode()) + rb"/[!-~]*")
    return _sha256(within.sub(b"<path>", path.read_bytes()))


def _without_volatile(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        kept = [key for key in value if not _is_volatile(f"{path}/{key}")]
        return {key: _without_volatile(value[key], f"{path}/{key}") for key in kept}
    if isinstance(value, list):
        return [_without_volatile(part, f"{path}/{index}") for index, part in enumerate(value)]
    return value


def _is_volatile(path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in VOLATILE)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
