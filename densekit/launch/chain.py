"""`densekit run`: a recipe after the stage that it needs, each in its own run directory."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from densekit.errors import DensekitError, UsageError
from densekit.evaluate.data import present
from densekit.launch.connector_conversion import convert_connectors
from densekit.launch.following import Watch, unwatched
from densekit.launch.launchers.base import Launcher, LostContactError
from densekit.launch.launchers.local import Local
from densekit.launch.model_check import check_models
from densekit.launch.preflight import preflight
from densekit.launch.revision_check import check_revisions
from densekit.launch.running import still_running
from densekit.launch.screen import shown
from densekit.planner.certificates import cached_certificate
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_needed, load_recipe, needed_name
from densekit.runs.checkpoint import with_step
from densekit.runs.complete import check_complete, tidy
from densekit.runs.layout import RunDir, WorkDir, checkpoints_in, move_aside, open_run, run_path
from densekit.runs.process_handle import read_handle, write_handle
from densekit.spec.architectures import shape_of
from densekit.spec.check import Check, refuse
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.math import RunMath
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

SHARED_FIELDS = (
    "models.language_model",
    "models.vision_tower",
    "models.high_resolution_tower",
    "models.tokenizer",
    "connector",
    "assets",
)
REACH_BOTH = (*SHARED_FIELDS, "seed=")
"""Beginnings of overrides that apply to both stages: a repetition has a stage 1 of its own."""


def load_chain(name: str, overrides: Sequence[str]) -> list[Recipe]:
    """The recipes to run, in order: the stage-1 recipe that `name` needs, if any, then `name`.

    Overrides of what both stages share (models, connector, assets) and of the seed apply to both.
    Raises UsageError when the two stages do not belong together.
    """
    recipe = load_recipe(name, overrides)
    if recipe.needs is None:
        return [recipe]
    shared = [override for override in overrides if override.startswith(REACH_BOTH)]
    first = load_needed(recipe, name, shared)
    if first.stage != 1:
        raise UsageError(
            f"{recipe.name} needs {first.name}, which is not a stage-1 recipe; give `needs` one"
        )
    for field in SHARED_FIELDS:
        ours, theirs = (_field(part, field) for part in (recipe, first))
        if ours != theirs:
            raise UsageError(
                f"{recipe.name} needs {first.name}, but their `{field}` differ ({ours} and "
                f"{theirs}); give both the same"
            )
    return [first, recipe]


def chain_math(
    chain: Sequence[Recipe],
    roots: Roots,
    *,
    asked: str | None = None,
    launcher: Launcher | None = None,
    more: Sequence[Check] = (),
) -> list[RunMath]:
    """The math.json of every run of a chain, after a preflight of all of them: each names the run
    it starts from. `asked`: as of `preflight`.

    Warnings, of `more` too, go to stderr. Raises DataError with everything that is missing or
    wrong, `more` among it; UsageError where only the container of the launcher would not see what
    is there.
    """
    found = [preflight(recipe, roots, asked=asked or chain[-1].name) for recipe in chain]
    checks = [check for part in found for check in part.checks]
    for check in (*checks, *more):
        if check.state == "warn":
            print(f"{check.name}: {check.message}", file=sys.stderr)
    hidden = [part.outside for part in found if part.outside]
    if launcher is None or not launcher.contained:
        hidden = []
    unseen = [Check(name="container", state="fail", message=text) for text in hidden]
    if any(check.state == "fail" for check in (*checks, *more)):
        refuse([*checks, *unseen, *more])
    if hidden:
        raise UsageError("\n".join(hidden))
    maths: list[RunMath] = []
    for recipe, part in zip(chain, found, strict=True):
        starts_from = maths[-1].sha256 if maths else None
        maths.append(RunMath(recipe=recipe.math(), starts_from=starts_from, inputs=part.inputs))
    return maths


def _field(recipe: Recipe, dotted: str) -> object:
    value: object = recipe
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def plan_stage(
    recipe: Recipe, request: ExecutionRequest, hardware: Hardware | None, roots: Roots
) -> Plan:
    """The plan of one recipe. Raises UsageError for what cannot work."""
    return make_plan(
        recipe,
        request,
        hardware=hardware,
        certificate=cached_certificate(recipe, roots),
        roots=roots,
    )


def execution_of(plan: Plan, roots: Roots, previous: RunDir | None) -> Execution:
    """The planned execution, with the folders of this host and the run it starts from."""
    starts_from = str(previous.path.resolve()) if previous else None
    return plan.execution.model_copy(update={"roots": roots.absolute(), "starts_from": starts_from})


Afterwards = Callable[[RunDir, Execution, str], int]
"""What follows a complete stage 2, given its run, how that was carried out, and which part of the
command this is; returns an exit code.
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a chain, as it will be carried out."""

    recipe: Recipe
    plan: Plan
    math: RunMath


def prepare(
    name: str,
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None,
    launcher: Launcher,
    alone: bool = False,
) -> list[Stage]:
    """The chain of a recipe, with everything checked that can be before a run directory is made.
    `alone`: without the stage that it needs.
    """
    chain = load_chain(name, overrides)[-1 if alone else 0 :]
    plans, problems = _plans(chain, request, hardware, roots)
    called = [needed_name(chain[-1], name), name] if len(chain) > 1 else [name]
    problems += [
        _memory_check(plan, request, word)
        for plan, word in zip(plans, called, strict=False)
        if plan.fits is False
    ]
    if plans:
        problems += _launcher_problems(launcher, execution_of(plans[-1], roots, None))
    asked = as_typed(name, overrides)
    execution = execution_of(plans[-1], roots, None) if plans else Execution()
    convert_connectors(chain, roots, launcher, execution)
    maths = chain_math(chain, roots, asked=asked, launcher=launcher, more=problems)
    for recipe in chain:
        if (revisions := check_revisions(recipe, roots)).state != "ok":
            print(f"{revisions.name}: {revisions.message}", file=sys.stderr)
    launcher.check_paths(runs_dir, roots, [math.recipe for math in maths])
    check_models(chain, roots, launcher, execution_of(plans[-1], roots, None))
    parts = zip(chain, plans, maths, strict=True)
    return [Stage(recipe=recipe, plan=plan, math=math) for recipe, plan, math in parts]


def as_typed(name: str, overrides: Sequence[str]) -> str:
    """A recipe and what is --set, as words of a command line."""
    return shlex.join([name, *(word for override in overrides for word in ("--set", override))])


def _memory_check(plan: Plan, request: ExecutionRequest, name: str) -> Check:
    """A plan that is estimated not to fit: refused, unless a micro-batch was given to try it."""
    tried = request.micro_batch_size is not None
    rest = "" if tried else "; train on other hardware, or try it here with --micro-batch N"
    command = f"densekit plan {shlex.quote(name)} --device {plan.execution.device}"
    message = f"{plan.recipe} is estimated not to fit into memory (`{command}` says why){rest}"
    return Check(name="plan", state="warn" if tried else "fail", message=message)


def _plans(
    chain: Sequence[Recipe], request: ExecutionRequest, hardware: Hardware | None, roots: Roots
) -> tuple[list[Plan], list[Check]]:
    """The plans, or none and why, where a model's folder is at fault; other UsageErrors are
    raised.
    """
    try:
        return [plan_stage(recipe, request, hardware, roots) for recipe in chain], []
    except DensekitError as error:
        if isinstance(error, UsageError) and not _is_of_models(error, chain, roots):
            raise
        return [], [Check(name="plan", state="fail", message=str(error))]


def _is_of_models(error: UsageError, chain: Sequence[Recipe], roots: Roots) -> bool:
    for recipe in chain:
        try:
            shape_of(recipe, roots)
        except DensekitError as of_models:
            return str(of_models) == str(error)
    return False


def _launcher_problems(launcher: Launcher, execution: Execution) -> list[Check]:
    """What keeps a launcher from working here. Raises UsageError for options that cannot work
    anywhere.
    """
    launcher.check_options(execution)
    try:
        launcher.check(execution)
    except DensekitError as error:
        return [Check(name=f"launcher {launcher.name}", state="fail", message=str(error))]
    return []


def reproduce(
    name: str,
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    force: bool = False,
    launcher: Launcher | None = None,
    announce: str | None = None,
    watch: Watch = unwatched,
    afterwards: Afterwards | None = None,
) -> int:
    """Run a recipe after the stage it needs; runs that are complete are used as they are. Returns
    an exit code.

    Everything that can be checked is checked for every stage before the first run directory is
    made. The launcher is the local one if none is given; `announce` is printed once nothing was
    refused; `watch` is what is done while the recipe itself trains. `afterwards` is given the
    complete run of a stage 2; its exit code is returned.
    """
    launcher = launcher or Local()
    chain = prepare(
        name,
        overrides=overrides,
        runs_dir=runs_dir,
        roots=roots,
        request=request,
        hardware=hardware,
        launcher=launcher,
    )
    last = chain[-1]
    evaluates = afterwards is not None and last.recipe.stage == 2
    parts = len(chain) + (evaluates and bool(present(last.math.recipe, roots)))
    if request.from_checkpoint is not None:
        check_has_checkpoint(run_path(runs_dir, last.math), request.from_checkpoint, force=force)
    previous: RunDir | None = None
    for stage in chain:
        run = open_run(runs_dir, stage.math)
        if announce and stage is chain[0]:
            print(announce, flush=True)
        with locked(run):
            if force and stage is last:
                run = open_again(run)
            execution = execution_of(stage.plan, roots, previous)
            if not already_complete(run):
                if stage is last:
                    asked = {"from_checkpoint": request.from_checkpoint}
                    execution = execution.model_copy(update=asked)
                part = f"{chain.index(stage) + 1} of {parts}" if parts > 1 else ""
                with (watch if stage is last else unwatched)(run):
                    code = start(run, execution, launcher, part=part)
                if code != 0:
                    return code
        previous = run
    if afterwards is not None and previous is not None and last.recipe.stage == 2:
        return afterwards(previous, execution, f"{parts} of {parts}")
    return 0


def check_has_checkpoint(path: Path, step: int, *, force: bool) -> None:
    """Raise UsageError unless the run directory `path` can be resumed from its checkpoint of
    `step`.
    """
    if force:
        raise UsageError("--from-checkpoint and --force: one resumes, the other retrains; give one")
    with_step(checkpoints_in(path / "checkpoints"), step, run=path)


def open_again(run: RunDir) -> RunDir:
    """The run of --force: an earlier one of the same math is moved aside."""
    if run.status.attempt == 0:
        return run
    math = run.math
    print(f"{math.recipe.name}: moved the earlier run aside to {move_aside(run)}")
    return open_run(run.path.parent, math)


def already_complete(run: RunDir) -> bool:
    """Whether there is nothing to do, which is printed. Raises DataError for a run that says so and
    lacks what it trained.
    """
    if run.complete:
        check_complete(run)
        tidy(run)
        print(f"{run.name}: already complete in {run.path} (--force retrains it)")
    return run.complete


@contextmanager
def locked(run: WorkDir) -> Iterator[None]:
    """Keep other drivers away from a run inside the block; UsageError when one is training it."""
    try:
        with FileLock(run.path.with_name(f".{run.path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise UsageError(
            f"another densekit is {run.doing} {run.path}; wait for it, or stop it with "
            f"`densekit stop {shlex.quote(str(run.path))}`"
        ) from None


def start(
    run: WorkDir, execution: Execution, launcher: Launcher | None = None, *, part: str = ""
) -> int:
    """Open the next attempt of a run, or of an evaluation, and carry it out; returns an exit code.
    `part`: of the command, as `shown` takes it.

    Raises UsageError when an earlier attempt, whose driver is gone, is still under way.
    """
    launcher = launcher or Local()
    begin(run, execution, launcher)
    try:
        with shown(run, part=part):
            return launcher.launch(run, execution)
    except LostContactError:
        raise  # what it started may go on
    except DensekitError as error:
        run.set_status("failed", message=str(error), exit_code=error.exit_code)
        raise


def begin(run: WorkDir, execution: Execution, launcher: Launcher) -> None:
    """Open the next attempt. Raises UsageError when an earlier one is still under way."""
    if (where := still_running(run)) is not None:
        raise UsageError(
            f"{run.path} is still under way ({where}); `densekit stop "
            f"{shlex.quote(str(run.path))}` stops it"
        )
    run.new_attempt(execution)
    by = "" if launcher.name == "local" else f" by {launcher.name}"
    print(f"{run.name}: {run.doing} in {run.path} {execution.describe(where=by)}", flush=True)


def open_next_attempt(path: Path) -> None:
    """Open the next attempt of the run at `path` with the execution of its last one, unless that
    one did not begin.

    Raises DataError when `path` is no run, UsageError when it is complete.
    """
    run = RunDir(path)
    state, handle = run.status.state, read_handle(run)
    if state == "complete":
        raise UsageError(f"{path} is complete: it has no next attempt")
    if state != "created":
        # A checkpoint was chosen for that attempt; this one resumes from what it saved.
        run.new_attempt(run.execution.model_copy(update={"from_checkpoint": None}))
        if handle:
            write_handle(handle)
