"""`densekit doctor`: whether this host can train, line by line, each with the next step where it
cannot.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from densekit import __version__
from densekit.errors import DensekitError
from densekit.launch.chain import load_chain
from densekit.launch.host_gpus import Gpu, check_driver, find_gpus, pick, target_for
from densekit.launch.launchers.docker.client import Engine, connect
from densekit.launch.launchers.docker.container import GIB, SHM_BYTES
from densekit.launch.preflight import preflight
from densekit.launch.revision_check import check_revisions
from densekit.launch.selection import kind_of
from densekit.planner.plan import make_plan
from densekit.spec.check import Check, CheckState
from densekit.spec.execution import ExecutionRequest
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")
DISK_GIB = {"tiny": (1, 5), "paper": (100, 300)}
"""Free GiB of the runs' disk below which a check fails, and below which it warns."""
VERSION_LABEL = "org.opencontainers.image.version"


def doctor(name: str | None, roots: Roots, runs_dir: Path) -> list[Check]:
    """Every check; with a recipe's name also its image, data and models. Nothing is changed."""
    chain = load_chain(name, ()) if name else []
    recipe = chain[-1] if chain else None
    gpus: list[Gpu] = []
    checks = [_packages()]
    try:
        gpus = find_gpus()
        checks.append(_gpus(gpus, recipe))
        if gpus:
            checks.append(_try("driver", lambda: _driver(gpus)))
            if recipe is not None and recipe.assets is None:
                checks.append(_try("memory", lambda: _memory(gpus, chain, roots)))
    except DensekitError as error:
        checks.append(_check("GPUs", "fail", str(error)))
    checks += _engine(gpus, recipe)
    checks += [_shm(gpus), _disk(runs_dir, recipe), _slurm()]
    for part in chain:
        checks.append(_try(part.name, lambda part=part: _reads(part, roots)))  # type: ignore[misc]
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


def _packages() -> Check:
    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        return _check(
            "packages",
            "warn",
            f"{', '.join(missing)} not installed: containers train all the same; for --launcher "
            "local run `make setup`",
        )
    return _check("packages", "ok", "everything that --launcher local needs")


def _gpus(gpus: list[Gpu], recipe: Recipe | None) -> Check:
    if not gpus:
        tiny = recipe is not None and recipe.assets is not None
        text = "none here: tiny recipes train on the processor" + (
            "" if tiny else "; the paper's need a GPU host"
        )
        return _check("GPUs", "ok" if tiny else "warn", text)
    smallest = min(gpus, key=lambda gpu: gpu.memory_mib)
    told = f"{len(gpus)} x {gpus[0]}, {smallest.memory_mib / 1024:.0f} GiB"
    if len({gpu.capability for gpu in gpus}) > 1:
        return _check(
            "GPUs",
            "warn",
            f"{told}: of several kinds; name those of one kind in CUDA_VISIBLE_DEVICES",
        )
    busy = [str(gpu.index) for gpu in gpus if gpu.used_mib > gpu.memory_mib // 10]
    if busy:
        return _check(
            "GPUs", "warn", f"{told}; in use: {', '.join(busy)} (`nvidia-smi` says by whom)"
        )
    return _check("GPUs", "ok", told)


def _driver(gpus: list[Gpu]) -> str:
    check_driver(gpus)
    return f"{gpus[0].driver}, new enough for the CUDA 12 of the images"


def _memory(gpus: list[Gpu], chain: list[Recipe], roots: Roots) -> str:
    """What the chain's plans take of the GPUs that a run would use; UsageError where one does not
    fit.
    """
    told = []
    for recipe in chain:
        picked = pick(gpus, min(recipe.reference.gpus, len(gpus)))
        plan = make_plan(
            recipe,
            ExecutionRequest(device="cuda", world_size=len(picked)),
            hardware=kind_of(picked),
            roots=roots,
        )
        if plan.memory_gib is None:
            return "not known: the shapes of the models are not"
        told.append(f"{recipe.name} {plan.memory_gib['peak']:.1f} GiB")
    return f"fits on {len(picked)} x {gpus[0].name}, {gpus[0].memory_mib / 1024:.0f} GiB: {', '.join(told)}"


def _engine(gpus: list[Gpu], recipe: Recipe | None) -> Iterator[Check]:
    needed: CheckState = "fail" if gpus else "warn"
    try:
        engine = connect()
        told = engine.client.version()
        info = engine.client.info()
    except DensekitError as error:
        yield _check("engine", needed, str(error))
        return
    yield _check("engine", "ok", f"{told['Version']}{', rootless' if engine.rootless else ''}")
    if gpus:
        has = (
            "nvidia" in info.get("Runtimes", {})
            or shutil.which("nvidia-container-runtime-hook") is not None
        )
        yield _check(
            "toolkit",
            "ok" if has else "fail",
            "the engine can hand out GPUs"
            if has
            else "the engine knows no NVIDIA runtime: install the NVIDIA "
            "Container Toolkit, then `nvidia-ctk runtime configure` and restart the engine",
        )
    yield _image(engine, gpus, recipe)


def _image(engine: Engine, gpus: list[Gpu], recipe: Recipe | None) -> Check:
    try:
        on_gpu = gpus and (recipe is None or recipe.assets is None)
        image = f"densekit:{target_for(gpus[0]).container_image if on_gpu else 'cpu'}"
        engine.image_id(image)
        labels = engine.client.images.get(image).labels or {}
    except DensekitError as error:
        return _check("image", "fail" if gpus else "warn", str(error))
    made = labels.get(VERSION_LABEL) or "unknown"
    if made != __version__:
        return _check(
            "image", "warn", f"{image} is of version {made}, this is {__version__}: build it again"
        )
    return _check("image", "ok", f"{image}, of this version")


def _shm(gpus: list[Gpu]) -> Check:
    place = Path("/dev/shm")
    if not place.is_dir():
        return _check("shm", "warn", "/dev/shm is missing: several processes cannot share memory")
    state = os.statvfs(place)
    free = state.f_bavail * state.f_frsize
    wanted = SHM_BYTES["cuda" if gpus else "cpu"]
    if free < wanted:
        return _check(
            "shm",
            "warn",
            f"{free / GIB:.1f} GiB free in /dev/shm, {wanted / GIB:.0f} are better for --launcher "
            "local: mount it larger (containers get their own)",
        )
    return _check("shm", "ok", f"{free / GIB:.1f} GiB free in /dev/shm")


def _disk(runs_dir: Path, recipe: Recipe | None) -> Check:
    place = runs_dir.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    fails, warns = DISK_GIB["tiny" if recipe is not None and recipe.assets is not None else "paper"]
    text = f"{free:.0f} GiB free for {runs_dir}"
    if recipe is None and free < fails:
        return _check("disk", "warn", f"{text}: enough for tiny recipes, not for the paper's")
    if free < fails:
        return _check(
            "disk",
            "fail",
            f"{text}: at least {fails} are needed; free some, or choose another --runs-dir",
        )
    return _check(
        "disk",
        "warn" if free < warns else "ok",
        text + (f": {warns} are better" if free < warns else ""),
    )


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return _check("Slurm", "ok", "not here, and not needed")
    return _check("Slurm", "ok", "sbatch is here: --launcher slurm")


def _reads(recipe: Recipe, roots: Roots) -> str:
    preflight(recipe, roots)
    return (
        "data and models are made by the kit"
        if recipe.assets is not None
        else "data and models are complete"
    )
