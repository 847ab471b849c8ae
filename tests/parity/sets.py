"""Copies of the compact set that a test may change, and what a case of one says then."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densekit.parity.compare import Quantity, run_case
from densekit.parity.find import find_cases

INPUTS = ("data", "models", "tokens.json")


def copy_set(golden: Path, target: Path, *folders: str) -> Path:
    """The inputs and some case folders of a set, in `target`."""
    for name in (*INPUTS, *folders):
        source = golden / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target / name)
    return target


def run(root: Path, case: str) -> dict[str, Quantity]:
    """The quantities of one case."""
    (found,) = [found for found in find_cases(root) if found.name == case]
    return run_case(found.check)


def failing(root: Path, case: str) -> dict[str, str]:
    """The quantities of one case that do not hold, with their messages."""
    return {name: q.error or "" for name, q in run(root, case).items() if not q.ok}


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def bump(value: Any, keys: tuple[str | int, ...], by: float = 0.01) -> None:
    """Change one entry: another string, the next integer, or a float by `by`."""
    for key in keys[:-1]:
        value = value[key]
    old = value[keys[-1]]
    if isinstance(old, str):
        value[keys[-1]] = "other"
    elif isinstance(old, bool):
        value[keys[-1]] = not old
    else:
        value[keys[-1]] = old + (1 if isinstance(old, int) else by)
