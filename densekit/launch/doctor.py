"""`densekit doctor`: whether this host can train, line by line, each with the next step where it
cannot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DensekitError
from densekit.launch.chain import as_typed, load_chain
from densekit.launch.checks.disk import disk_checks
from densekit.launch.host_gpus import VISIBLE, Gpu, check_driver, find_gpus, kind_of, pick
from densekit.launch.launchers.registry import launcher_class, launcher_names
from densekit.launch.preflight import preflight
from densekit.launch.revision_check import check_revisions
from densekit.planner.planning import make_plan
from densekit.spec.check import Check, CheckState
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """GPUs that are asked about and are not those of this host."""

    kind: Hardware
    world_size: int | None
    """None: as many as the paper used."""


def doctor(
    name: str | None, roots: Roots, runs_dir: Path, *, elsewhere: Elsewhere | None = None
) -> list[Check]:
    """Every check; with a recipe's name also its image, data and models.

    With `elsewhere` the recipe is planned for those GPUs, and this host's GPUs and launchers are
    not looked at. Nothing is changed but what the cache remembers of images. Raises UsageError for
    a recipe that cannot be read.
    """
    chain = load_chain(name, ()) if name else []
    tiny = bool(chain) and chain[-1].assets is not None
    checks: list[Check] = []
    if elsewhere is None:
        gpus, checks = _gpu_checks(chain, roots, tiny=tiny)
        for launcher in launcher_names():
            checks += launcher_class(launcher).diagnose(gpus, tiny=tiny)
    else:
        world_size = elsewhere.world_size or (chain[-1].reference.gpus if chain else 1)
        asked = f"{world_size} x {elsewhere.kind.name}"
        checks.append(_check("GPUs", "ok", f"{asked}, as asked; this host's are not looked at"))
        if chain:
            kind = elsewhere.kind
            checks.append(_try("memory", lambda: _fits(chain, roots, kind, world_size, asked)))
    checks += disk_checks(chain, roots, runs_dir)
    for part in chain:
        checks += preflight(part, roots, asked=as_typed(name, ()) if name else None).checks
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
    """What the chain's plans take of the GPUs that a run would use."""
    picked = pick(gpus, min(chain[-1].reference.gpus, len(gpus)))
    each = f"{gpus[0].memory_mib / 1024:.0f} GiB"
    where = f"{len(picked)} x {gpus[0].name}, {each}"
    return _fits(chain, roots, kind_of(picked), len(picked), where)


def _fits(
    chain: Sequence[Recipe], roots: Roots, kind: Hardware, world_size: int, where: str
) -> str:
    """What the chain's plans take of GPUs of a kind; UsageError where one does not fit."""
    peaks = []
    for recipe in chain:
        plan = make_plan(
            recipe,
            ExecutionRequest(device="cuda", world_size=world_size),
            hardware=kind,
            roots=roots,
        )
        if plan.memory_gib is None:
            return "not estimated: the architecture of a model is unknown"
        host = plan.memory_gib.host
        also = f" and {host:.0f} GiB of host RAM each" if host else ""
        peaks.append(f"{recipe.name} {plan.memory_gib.peak:.1f} GiB{also}")
    return f"fits on {where}: {', '.join(peaks)}"
