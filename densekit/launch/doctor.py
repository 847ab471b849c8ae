"""`densekit doctor`: whether this host can train, line by line, each with the next step where it
cannot.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from densekit.errors import DensekitError
from densekit.launch.chain import load_chain
from densekit.launch.host_gpus import VISIBLE, Gpu, check_driver, find_gpus, kind_of, pick
from densekit.launch.launchers.registry import launcher_class, launcher_names
from densekit.launch.preflight import preflight
from densekit.launch.revision_check import check_revisions
from densekit.planner.plan import make_plan
from densekit.spec.check import Check, CheckState
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

DISK_GIB = {"tiny": (1, 5), "paper": (100, 300)}
"""Free GiB of the runs' disk below which a check fails, and below which it warns."""


def doctor(name: str | None, roots: Roots, runs_dir: Path) -> list[Check]:
    """Every check; with a recipe's name also its image, data and models. Nothing is changed."""
    chain = load_chain(name, ()) if name else []
    recipe = chain[-1] if chain else None
    tiny = recipe is not None and recipe.assets is not None
    gpus, checks = _gpu_checks(chain, roots, tiny=tiny)
    for launcher in launcher_names():
        checks += launcher_class(launcher).diagnose(gpus, tiny=tiny)
    checks.append(_disk(runs_dir, recipe))
    for part in chain:
        checks.append(_try(part.name, lambda part=part: _inputs(part, roots)))  # type: ignore[misc]
        if part.assets is None:
            checks.append(check_revisions(part, roots))
    return checks


def _check(name: str, state: CheckState, message: str) -> Check:
    return Check(name=name, state=state, message=message)


def _try(name: str, work: Callable[[], str]) -> Check:
    try:
        return _check(name, "ok", work())
    except DensekitError as error:
        return _check(name, "fail", str(error))


def _gpu_checks(
    chain: Sequence[Recipe], roots: Roots, *, tiny: bool
) -> tuple[list[Gpu], list[Check]]:
    try:
        gpus = find_gpus()
    except DensekitError as error:
        return [], [_check("GPUs", "fail", str(error))]
    checks = [_gpus(gpus, tiny=tiny)]
    if gpus:
        checks.append(_try("driver", lambda: _driver(gpus)))
        if chain and not tiny:
            checks.append(_try("memory", lambda: _memory(gpus, chain, roots)))
    return gpus, checks


def _gpus(gpus: Sequence[Gpu], *, tiny: bool) -> Check:
    if not gpus:
        message = "none on this host: tiny recipes train on the CPU"
        if tiny:
            return _check("GPUs", "ok", message)
        return _check("GPUs", "warn", f"{message}; the paper's need a GPU host")
    smallest = min(gpu.memory_mib for gpu in gpus)
    found = f"{len(gpus)} x {gpus[0]}, {smallest / 1024:.0f} GiB"
    if len({gpu.capability for gpu in gpus}) > 1:
        message = f"{found}: mixed GPU models; list those of one model in {VISIBLE}"
        return _check("GPUs", "warn", message)
    busy = [str(gpu.index) for gpu in gpus if gpu.used_mib > gpu.memory_mib // 10]
    if busy:
        message = f"{found}; in use: {', '.join(busy)} (`nvidia-smi` lists the processes)"
        return _check("GPUs", "warn", message)
    return _check("GPUs", "ok", found)


def _driver(gpus: Sequence[Gpu]) -> str:
    check_driver(gpus)
    return f"{gpus[0].driver}, new enough for CUDA 12 of the container images"


def _memory(gpus: Sequence[Gpu], chain: Sequence[Recipe], roots: Roots) -> str:
    """What the chain's plans take of the GPUs that a run would use; UsageError where one does not
    fit.
    """
    peaks = []
    for recipe in chain:
        picked = pick(gpus, min(recipe.reference.gpus, len(gpus)))
        plan = make_plan(
            recipe,
            ExecutionRequest(device="cuda", world_size=len(picked)),
            hardware=kind_of(picked),
            roots=roots,
        )
        if plan.memory_gib is None:
            return "not estimated: the architecture of a model is unknown"
        peaks.append(f"{recipe.name} {plan.memory_gib.peak:.1f} GiB")
    each = f"{gpus[0].memory_mib / 1024:.0f} GiB"
    return f"fits on {len(picked)} x {gpus[0].name}, {each}: {', '.join(peaks)}"


def _disk(runs_dir: Path, recipe: Recipe | None) -> Check:
    place = runs_dir.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    tiny = recipe is not None and recipe.assets is not None
    fails, warns = DISK_GIB["tiny" if tiny else "paper"]
    message = f"{free:.0f} GiB free for {runs_dir}"
    if free < fails and recipe is None:
        return _check("disk", "warn", f"{message}: enough for tiny recipes, not for the paper's")
    if free < fails:
        message += f": at least {fails} GiB are needed; free some, or choose another --runs-dir"
        return _check("disk", "fail", message)
    if free < warns:
        return _check("disk", "warn", f"{message}: {warns} GiB are recommended")
    return _check("disk", "ok", message)


def _inputs(recipe: Recipe, roots: Roots) -> str:
    preflight(recipe, roots)
    made = recipe.assets is not None
    return f"data and models are {'made by densekit' if made else 'complete'}"
