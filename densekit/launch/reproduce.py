"""`densekit run`: a recipe and the stage it needs, each in its run directory, one after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from densekit.errors import UsageError
from densekit.launch.local import launch
from densekit.launch.preflight import preflight
from densekit.plan.execution import Plan, make_plan
from densekit.recipe.load import load_needed, load_recipe
from densekit.recipe.schema import Recipe
from densekit.run.hashing import json_sha256
from densekit.run.layout import RunDir, open_run, run_math, set_aside
from densekit.run.roots import Roots

SHARED_FIELDS = ("models.language_model", "models.vision_tower", "models.tokenizer", "connector", "assets")


def load_chain(name: str, overrides: Sequence[str]) -> list[Recipe]:
    """The recipes to run, in order: the stage-1 recipe that `name` needs, if any, then `name`.

    Overrides of what both stages share (models, connector, assets) apply to both. Raises UsageError when the two
    stages do not belong together.
    """
    recipe = load_recipe(name, overrides)
    if recipe.needs is None:
        return [recipe]
    shared = [override for override in overrides if override.startswith(SHARED_FIELDS)]
    first = load_needed(recipe, name, shared)
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
    """The math.json of every run of a chain, after a preflight of all of them: each names the run it starts from.

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


def reproduce(
    name: str,
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    gpus: int,
    micro_batch_size: int | None,
    workers: int = 0,
    force: bool,
) -> int:
    """Run a recipe after the stage it needs; runs that are complete are used as they are. Returns an exit code.

    Everything that can be checked is checked for every stage before the first run directory is made.
    """
    chain = load_chain(name, overrides)
    plans = [make_plan(recipe, gpus=gpus, micro_batch_size=micro_batch_size, workers=workers) for recipe in chain]
    previous: RunDir | None = None
    for recipe, plan, math in zip(chain, plans, chain_math(chain, roots), strict=True):
        run = open_run(runs_dir, math)
        try:
            with FileLock(run.path.with_name(f".{run.path.name}.lock"), timeout=0):
                if force and recipe is chain[-1] and run.status["attempt"]:
                    print(f"{recipe.name}: the earlier run is now {set_aside(run)}")
                    run = open_run(runs_dir, math)
                code = _train(run, recipe, plan, roots, previous)
        except Timeout:
            raise UsageError(f"{run.path} is being trained by another densekit; wait for it or stop it") from None
        if code != 0:
            return code
        previous = run
    return 0


def _train(run: RunDir, recipe: Recipe, plan: Plan, roots: Roots, previous: RunDir | None) -> int:
    if run.complete:
        print(f"{recipe.name}: already complete in {run.path} (--force trains it anew)")
        return 0
    print(f"{recipe.name}: training in {run.path} on {plan.gpus} CPU process(es)", flush=True)
    run.new_attempt(
        {
            "device": "cpu",
            "gpus": plan.gpus,
            "micro_batch_size": plan.micro_batch_size,
            "micro_batches": plan.micro_batches,
            "attention": plan.attention,
            "dtype": plan.dtype,
            "workers": plan.workers,
            "threads": plan.threads,
            "roots": roots.as_json(),
            "starts_from": str(previous.path.resolve()) if previous else None,
        }
    )
    return launch(run, processes=plan.gpus, threads=plan.threads)
