"""A run by name, wherever a command takes a run directory."""

import re
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.runs.layout import MATH_FILE, STATUS_FILE

DERIVED = re.compile(r"\.(old|replay)\d+$")
"""Ends of folders that hold a run moved aside, or a replay of one."""
LISTED = 10
"""Candidates that a message lists at most."""


def find_run(name: str, runs_dir: Path) -> Path:
    """The run directory that `name` means: a path of one, the name of one in `runs_dir`, or the
    beginning of one's name, such as its recipe's.

    A recipe's whole name goes before names that only begin so (tiny_stage2 before
    tiny_stage2_lora), and a run before those that were moved aside or replay it. A path that leads
    to something else is returned, so that the command can say what is wrong with it.

    Raises DataError where there is no such run, and UsageError where the name means several: it
    lists them, the newest first.
    """
    if not name:
        raise UsageError("a run is named by nothing; `densekit ls` lists the runs")
    path = Path(name)
    if _is_run(path):
        return path
    if _is_run(runs_dir / name):
        return runs_dir / name
    if path.exists() or "/" in name:
        return path
    found = [folder for folder in runs_dir.glob("*") if _is_run(folder)]
    of_recipe = [folder for folder in found if folder.name.rpartition("-")[0] == name]
    candidates = of_recipe or [folder for folder in found if folder.name.startswith(name)]
    candidates = [each for each in candidates if not DERIVED.search(each.name)] or candidates
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise DataError(f"no run {name} in {runs_dir}; `densekit ls` lists the runs")
    newest_first = sorted(candidates, key=_changed, reverse=True)
    names = [folder.name for folder in newest_first[:LISTED]]
    more = f" and {len(newest_first) - LISTED} more" if len(newest_first) > LISTED else ""
    raise UsageError(
        f"{name} means {len(candidates)} runs in {runs_dir}, the newest first: {', '.join(names)}"
        f"{more}; give one of these names"
    )


def _is_run(folder: Path) -> bool:
    return (folder / MATH_FILE).is_file()


def _changed(folder: Path) -> float:
    """When the run's state last changed, seconds."""
    status = folder / STATUS_FILE
    return (status if status.is_file() else folder).stat().st_mtime


def find_runs(names: str, runs_dir: Path) -> list[Path]:
    """The run directories of an arm: names separated by commas, each as `find_run` takes it; the
    name of a recipe with several runs means all of them, except those moved aside and replays.

    Raises as `find_run`, and UsageError for no name at all.
    """
    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        of_recipe = [
            folder
            for folder in sorted(runs_dir.glob("*"))
            if folder.name.rpartition("-")[0] == name
            and _is_run(folder)
            and not DERIVED.search(folder.name)
        ]
        found += of_recipe if len(of_recipe) > 1 else [find_run(name, runs_dir)]
    if not found:
        raise UsageError(f"no run is named in {names!r}: give runs, separated by commas")
    return found
