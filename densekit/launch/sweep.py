"""Several recipes with one command, as ablations need: one after the other, or all at once where
the launcher can. Stages that recipes share are trained once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from densekit.errors import INTERRUPTED_CODE, PREEMPTED_CODE, DensekitError, UsageError
from densekit.launch.chain import (
    Stage,
    already_complete,
    begin,
    execution_of,
    locked,
    open_again,
    prepare,
    reproduce,
)
from densekit.launch.evaluation import evaluate_here
from densekit.launch.following import Watch, unwatched
from densekit.launch.launchers.base import (
    UNDER_WAY,
    Arrays,
    Element,
    Launcher,
    LostContactError,
)
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.selection import Selection, select
from densekit.recipes.load import load_recipe
from densekit.runs.layout import RunDir, open_run
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots
from densekit.spec.site import Site


def select_for_all(
    names: Sequence[str],
    overrides: Sequence[str],
    request: ExecutionRequest,
    *,
    launcher: str | None = None,
    options: LauncherOptions | None = None,
    site: Site | None = None,
) -> Selection:
    """One selection for several recipes. Raises UsageError when they would get different ones."""
    recipes = {name: load_recipe(name, overrides) for name in names}
    selections = {
        name: select(recipe, request, launcher=launcher, options=options, site=site)
        for name, recipe in recipes.items()
    }
    first = selections[names[0]]
    for name, selection in selections.items():
        if selection.describe() != first.describe():
            raise UsageError(
                f"{name} resolves to a different launcher or device than {names[0]} "
                f"({selection.describe()}; {first.describe()}): run them separately, or pass "
                "--launcher, --device, --gpu and --gpus"
            )
    return first


def sweep(
    names: Sequence[str],
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    launcher: Launcher,
    force: bool = False,
    announce: str | None = None,
    watch: Watch = unwatched,
    evaluation: bool = True,
) -> int:
    """Run recipes, each after the stage it needs; returns the exit code of the first that failed,
    else 0. `evaluation`: a stage 2 ends with that of what benchmark data is here.

    All of them are checked before the first run directory is made. One that fails does not keep the
    others from training, Ctrl-C does.
    """
    common: dict[str, Any] = {
        "overrides": overrides,
        "roots": roots,
        "request": request,
        "hardware": hardware,
        "launcher": launcher,
    }
    if len(names) > 1:
        if watch is not unwatched:
            raise UsageError("--trajectory: give one recipe, the one that the file belongs to")
        if request.from_checkpoint is not None:
            raise UsageError("--from-checkpoint: give one recipe, the one that is to be resumed")
        chains = [prepare(name, runs_dir=runs_dir, **common) for name in names]
        if (arrays := launcher.arrays()) is not None:
            with ExitStack() as locks:
                elements = _open_all(chains, roots, runs_dir, locks, force=force)
                if announce:
                    print(announce, flush=True)
                code = _launch_all(elements, launcher, arrays)
            asked = [chain[-1].math for chain in chains]
            return code or (_evaluate_all(elements, asked, launcher) if evaluation else 0)

    def evaluated(run: RunDir, execution: Execution, part: str) -> int:
        return evaluate_here(run.path, execution, launcher, part=part)

    first_code = 0
    for name in dict.fromkeys(names):
        code = reproduce(
            name,
            runs_dir=runs_dir,
            force=force,
            announce=announce,
            watch=watch,
            afterwards=evaluated if evaluation else None,
            **common,
        )
        if code in (PREEMPTED_CODE, INTERRUPTED_CODE):
            return code
        first_code, announce = first_code or code, None
    return first_code


def _open_all(
    chains: Sequence[Sequence[Stage]],
    roots: Roots,
    runs_dir: Path,
    locks: ExitStack,
    *,
    force: bool,
) -> list[Element]:
    """The distinct runs of all chains, opened and locked; `force` moves earlier ones of the recipes
    that were asked for aside.
    """
    asked_for = [chain[-1].math for chain in chains]

    def opened(math: RunMath) -> RunDir:
        run = open_run(runs_dir, math)
        locks.enter_context(locked(run))
        return open_again(run) if force and math in asked_for else run

    elements: dict[str, Element] = {}
    for chain in chains:
        previous: Element | None = None
        for stage in chain:
            run_hash = stage.math.sha256
            if run_hash not in elements:
                execution = execution_of(stage.plan, roots, previous.run if previous else None)
                elements[run_hash] = Element(
                    run=opened(stage.math), execution=execution, after=previous
                )
            previous = elements[run_hash]
    return [*elements.values()]


def _evaluate_all(
    elements: Sequence[Element], asked_for: Sequence[RunMath], launcher: Launcher
) -> int:
    """Evaluate the stage-2 runs that were asked for, one after the other; returns the exit code of
    the first that failed, else 0.
    """
    codes = [
        evaluate_here(element.run.path, element.execution, launcher)
        for element in elements
        if element.run.math in asked_for and element.run.math.recipe.stage == 2
    ]
    return next((code for code in codes if code), 0)


def _launch_all(elements: Sequence[Element], launcher: Launcher, arrays: Arrays) -> int:
    """Train those that are not complete; returns the exit code of the first that failed, else 0."""
    left = [element for element in elements if not already_complete(element.run)]
    for element in left:
        begin(element.run, element.execution, launcher)
    try:
        return arrays.launch(left)
    except LostContactError:
        raise  # what it started may go on
    except DensekitError as error:
        for element in left:
            if element.run.status.state in UNDER_WAY:
                element.run.set_status("failed", message=str(error), exit_code=error.exit_code)
        raise
