"""Whether the disks have room for what a chain of runs writes and for what it still has to get, by
the plan.
"""

from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DensekitError
from densekit.files.disks import disk, free_bytes
from densekit.planner.planning import make_plan
from densekit.spec.check import Check
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def disk_checks(chain: Sequence[Recipe], roots: Roots, runs_dir: Path) -> list[Check]:
    """One check for the disk of the runs, and one for each disk that data or models are missing
    from; without a recipe the room alone.
    """
    free = free_bytes(runs_dir) / GIB
    message = f"{free:.1f} GiB free for {runs_dir}"
    if not chain:
        hint = "`densekit doctor RECIPE` says what a recipe needs"
        return [Check(name="disk", state="ok", message=f"{message}; {hint}")]
    needs: dict[str, float] = {"checkpoints": 0.0, "results": 0.0, "data": 0.0, "models": 0.0}
    for recipe in chain:
        try:
            parts = make_plan(recipe, roots=roots).disk_parts_gib
        except DensekitError:
            parts = None  # preflight says what is wrong with the models
        if parts is None:
            note = f"what {recipe.name} needs is not known"
            return [Check(name="disk", state="warn", message=f"{message}; {note}")]
        # A stage's checkpoints are removed when it is complete; the stages share their models.
        for name in ("checkpoints", "data", "models"):
            needs[name] = max(needs[name], parts[name])
        needs["results"] += parts["results"]
    wanted = {runs_dir: needs["checkpoints"] + needs["results"]}
    last = chain[-1]
    missing = {"models": last.models.language_model, "data": last.data.annotations}
    for part, reference in missing.items():
        place = roots.resolve(reference)
        if not last.makes(reference) and not place.exists():
            wanted[place] = needs[part]
    return _checks(wanted)


def _checks(wanted: dict[Path, float]) -> list[Check]:
    """A check for each disk, with everything that is to be written to it."""
    disks: dict[int, list[Path]] = {}
    for place in wanted:
        disks.setdefault(disk(place), []).append(place)
    checks = []
    for places in disks.values():
        free, needed = free_bytes(places[0]) / GIB, sum(wanted[place] for place in places)
        parts = ", ".join(f"{wanted[place]:.1f} for {place}" for place in places)
        message = f"{free:.1f} GiB free, {needed:.1f} GiB needed ({parts})"
        if free < needed:
            message += ": free some, or choose other folders (--runs-dir, --models-dir, --data-dir)"
        state = "fail" if free < needed else "ok"
        checks.append(Check(name="disk", state=state, message=message))  # type: ignore[arg-type]
    return checks
