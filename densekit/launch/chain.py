"""`densekit run`: a recipe and the stage it needs, each in its run directory, one after the other."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from densekit.errors import DensekitError, UsageError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_json
from densekit.launch.launchers.base import Launcher, is_distributed
from densekit.launch.launchers.in_flight import still_running
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.slurm.jobs import LostContactError
from densekit.launch.preflight import preflight
from densekit.launch.revision_check import check_revisions
from densekit.planner.certificates import cached_certificate
from densekit.planner.plan import Plan, make_plan
from densekit.planner.precision import ZeroStage
from densekit.planner.search import Fixed
from densekit.recipes.load import load_needed, load_recipe
from densekit.recipes.unsupported import refuse_waiting
from densekit.runs.layout import RunDir, open_run, run_math, set_aside
from densekit.runs.process_handle import read_launched, write_launched
from densekit.spec.capability import Attention, Device, Dtype
from densekit.spec.hardware import Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

SHARED_FIELDS = (
    "models.language_model",
    "models.vision_tower",
    "models.tokenizer",
    "connector",
    "assets",
)


def load_chain(name: str, overrides: Sequence[str]) -> list[Recipe]:
    """The recipes to run, in order: the stage-1 recipe that `name` needs, if any, then `name`.

    Overrides of what both stages share (models, connector, assets) apply to both. Raises UsageError
    when the two stages do not belong together, and for a row of the paper that waits for something
    densekit does not have.
    """
    recipe = load_recipe(name, overrides)
    refuse_waiting(recipe)
    if recipe.needs is None:
        return [recipe]
    shared = [override for override in overrides if override.startswith(SHARED_FIELDS)]
    first = load_needed(recipe, name, shared)
    refuse_waiting(first)
    if first.stage != 1:
        raise UsageError(f"{recipe.name} needs {first.name}, which is not a stage-1 recipe")
    for field in SHARED_FIELDS:
        ours, theirs = (_field(part, field) for part in (recipe, first))
        if ours != theirs:
            raise UsageError(
                f"{recipe.name} needs {first.name}, but their `{field}` differ ({ours} and {theirs}): "
                "both stages use the same one"
            )
    return [first, recipe]


def chain_math(chain: Sequence[Recipe], roots: Roots) -> list[dict[str, Any]]:
    """The math.json of every run of a chain, after a preflight of all of them: each names the run
    it starts from.

    Raises DataError for the first file that is missing or wrong.
    """
    maths: list[dict[str, Any]] = []
    for recipe in chain:
        starts_from = json_sha256(maths[-1]) if maths else None
        maths.append(run_math(recipe.math(), starts_from, preflight(recipe, roots)))
    return maths


def _field(recipe: Recipe, dotted: str) -> object:
    value: object = recipe
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """How a run is carried out, as asked for on the command line; None takes the plan's default."""

    gpus: int = 1
    """Processes of all nodes together."""
    nodes: int = 1
    device: Device = "cpu"
    dtype: Dtype | None = None
    attention: Attention | None = None
    zero_stage: ZeroStage | None = None
    activation_checkpointing: bool | None = None
    offload: bool | None = None
    micro_batch_size: int | None = None
    hardware: Hardware | None = None
    """The kind of the GPUs, where it is known: the search then plans for their memory."""
    workers: int = 0
    save_steps: int | None = None
    save_minutes: float = 15.0
    """Minutes between checkpoints; 0 saves by steps alone."""
    keep: int = 2
    keep_hours: float = 0.0
    deterministic: bool = False

    def plan(self, recipe: Recipe, roots: Roots) -> Plan:
        """The plan of one recipe. Raises UsageError for what cannot work."""
        for name, value, least in (
            ("--save-steps", self.save_steps, 1),
            ("--save-minutes", self.save_minutes, 0),
            ("--keep-hours", self.keep_hours, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: at least {least}")
        fixed = Fixed(
            micro_batch_size=self.micro_batch_size,
            zero_stage=self.zero_stage,
            checkpointing=self.activation_checkpointing,
            offload=self.offload,
            dtype=self.dtype,
            attention=self.attention,
        )
        return make_plan(
            recipe,
            fixed,
            gpus=self.gpus,
            nodes=self.nodes,
            device=self.device,
            hardware=self.hardware,
            workers=self.workers,
            certificate=cached_certificate(recipe, roots),
            roots=roots,
            keep=self.keep,
        )

    def execution(self, plan: Plan, roots: Roots, previous: RunDir | None) -> dict[str, Any]:
        """What execution.json holds."""
        planned = plan.as_json()
        return {name: planned[name] for name in PLANNED} | {
            "deterministic": self.deterministic,
            "checkpoints": {
                "every_steps": self.save_steps,
                "every_minutes": self.save_minutes or None,
                "keep": self.keep,
                "keep_hours": self.keep_hours,
            },
            "roots": roots.as_json(),
            "starts_from": str(previous.path.resolve()) if previous else None,
        }


PLANNED = (
    "device",
    "gpus",
    "nodes",
    "micro_batch_size",
    "micro_batches",
    "attention",
    "dtype",
    "zero_stage",
    "checkpointing",
    "offload",
    "certificate_sha256",
    "workers",
    "threads",
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a chain, as it will be carried out."""

    recipe: Recipe
    plan: Plan
    math: dict[str, Any]


def prepare(
    name: str, *, overrides: Sequence[str], roots: Roots, carrying: Carrying, launcher: Launcher
) -> list[Stage]:
    """The chain of a recipe, with everything checked that can be before a run directory is made."""
    chain = load_chain(name, overrides)
    plans = [carrying.plan(recipe, roots) for recipe in chain]
    for plan in plans:
        if plan.fits is False:
            told = "does not fit by the memory model (`densekit plan` says more) and is tried all the same"
            print(f"{plan.recipe}: {told}", file=sys.stderr)
    maths = chain_math(chain, roots)
    for recipe in chain:
        if (revisions := check_revisions(recipe, roots)).state != "ok":
            print(f"{revisions.name}: {revisions.message}", file=sys.stderr)
    launcher.check(carrying.execution(plans[-1], roots, None))
    parts = zip(chain, plans, maths, strict=True)
    return [Stage(recipe=recipe, plan=plan, math=math) for recipe, plan, math in parts]


def reproduce(
    name: str,
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    carrying: Carrying,
    force: bool = False,
    launcher: Launcher | None = None,
    announce: str | None = None,
) -> int:
    """Run a recipe after the stage it needs; runs that are complete are used as they are. Returns
    an exit code.

    Everything that can be checked is checked for every stage before the first run directory is
    made. The launcher is the local one if none is given; `announce` is printed once nothing was
    refused.
    """
    launcher = launcher or Local()
    chain = prepare(name, overrides=overrides, roots=roots, carrying=carrying, launcher=launcher)
    previous: RunDir | None = None
    for stage in chain:
        run = open_run(runs_dir, stage.math)
        if announce and stage is chain[0]:
            print(announce, flush=True)
        with locked(run):
            if force and stage is chain[-1]:
                run = opened_anew(run)
            if not already_complete(run):
                code = start(run, carrying.execution(stage.plan, roots, previous), launcher)
                if code != 0:
                    return code
        previous = run
    return 0


def opened_anew(run: RunDir) -> RunDir:
    """The run of --force: an earlier one of the same math is set aside."""
    if run.status["attempt"] == 0:
        return run
    math = run.math
    print(f"{math['recipe']['name']}: the earlier run is now {set_aside(run)}")
    return open_run(run.path.parent, math)


def already_complete(run: RunDir) -> bool:
    """Whether there is nothing to do, which is said."""
    if run.complete:
        print(
            f"{run.math['recipe']['name']}: already complete in {run.path} (--force trains it anew)"
        )
    return run.complete


@contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Keep other drivers away from a run inside the block; UsageError when one is at it."""
    try:
        with FileLock(run.path.with_name(f".{run.path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise UsageError(
            f"{run.path} is being trained by another densekit; wait for it or stop it"
        ) from None


def start(run: RunDir, execution: dict[str, Any], launcher: Launcher | None = None) -> int:
    """Open the next attempt of a run and train it; returns an exit code.

    Raises UsageError when an earlier attempt, whose driver is gone, is still training.
    """
    launcher = launcher or Local()
    begin(run, execution, launcher)
    try:
        return launcher.launch(run, execution)
    except LostContactError:
        raise  # the job goes on
    except DensekitError as error:
        run.set_status("failed", message=str(error), exit_code=error.exit_code)
        raise


def begin(run: RunDir, execution: dict[str, Any], launcher: Launcher) -> None:
    """Open the next attempt. Raises UsageError when an earlier one is still training."""
    if (place := still_running(run)) is not None:
        raise UsageError(
            f"{run.path} is still being trained by {place}: `densekit stop {run.path}` stops it"
        )
    run.new_attempt(execution)
    print(
        f"{run.math['recipe']['name']}: training in {run.path} {carried_out(execution, launcher)}",
        flush=True,
    )


def carried_out(execution: Mapping[str, Any], launcher: Launcher) -> str:
    """How a run is carried out, in words."""
    stage = execution["zero_stage"]
    engine = f"ZeRO-{stage}" if stage else "DDP" if is_distributed(execution) else "no sharding"
    engine += ", offload" if execution.get("offload") else ""
    kind = f"{execution['device'].upper()} process{'es' if execution['gpus'] > 1 else ''}"
    where = "" if launcher.name == "local" else f" by {launcher.name}"
    nodes = f" of {execution['nodes']} nodes" if execution.get("nodes", 1) > 1 else ""
    how = f"{engine}, {execution['dtype']}, {execution['attention']} attention"
    return f"on {execution['gpus']} {kind}{nodes}{where} ({how})"


def open_next_attempt(path: Path) -> None:
    """Open the next attempt of the run at `path` in the way of its last one, unless that one did
    not begin.

    Raises DataError when `path` is no run, UsageError when it is complete.
    """
    run = RunDir(path)
    state, launched = run.status["state"], read_launched(run)
    if state == "complete":
        raise UsageError(f"{path} is complete")
    if state != "created":
        run.new_attempt(read_json(run.attempt / "execution.json"))
        if launched:
            write_launched(run, launched)
