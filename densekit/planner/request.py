"""What `densekit plan` is asked about: the GPUs of the command line, else the paper's, else this
CPU.
"""

from pathlib import Path

from densekit.errors import UsageError
from densekit.planner.alternatives import Alternative, alternatives
from densekit.planner.candidates import SearchSpace
from densekit.planner.certificates import cached_certificate, make_certificate
from densekit.planner.cluster import usual_nodes
from densekit.planner.estimate import steps_for_hours
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.planner.workload import Workload
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Efficiency, Hardware, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def with_hardware(
    recipe: Recipe, request: ExecutionRequest
) -> tuple[ExecutionRequest, Hardware | None]:
    """The request with device, world size and nodes filled in, and the kind of its GPUs.

    Raises UsageError for a GPU that is not known, and for a GPU with --device cpu.
    """
    paper, gpu = recipe.hardware, request.gpu
    device, world_size, nodes = request.device, request.world_size, request.nodes
    if gpu is not None and device is not None and (gpu == "cpu") != (device == "cpu"):
        raise UsageError(f"--gpu {gpu} --device {device}: give one of the two")
    if device is None:
        kind = gpu or (paper.gpu if paper else "cpu")
        device = "cpu" if kind == "cpu" else "cuda"
    row: Hardware | None = None
    if device == "cpu":
        world_size = 1 if world_size is None else world_size
    else:
        if world_size is None:
            world_size = paper.gpus if paper else recipe.reference.gpus
        if gpu is not None:
            row = hardware(gpu)
        elif paper is not None:
            row = hardware(paper.gpu, "hardware.gpu")
        if nodes is None and row is not None:
            as_printed = paper is not None and (row.name, world_size) == (paper.gpu, paper.gpus)
            nodes = paper.nodes if paper and as_printed else usual_nodes(row, world_size)
    filled = {"device": device, "world_size": world_size, "nodes": 1 if nodes is None else nodes}
    return request.model_copy(update=filled), row


def answer(
    recipe: Recipe,
    request: ExecutionRequest,
    roots: Roots,
    runs_dir: Path,
    *,
    price: float | None = None,
    certify: bool = False,
) -> tuple[Plan, list[Alternative] | None]:
    """The plan that was asked for and, where no GPU was named for a recipe of the paper, what else
    it fits on.

    Raises UsageError for what cannot work, DataError for data that is wrong.
    """
    filled, row = with_hardware(recipe, request)
    certificate = make_certificate(recipe, roots) if certify else cached_certificate(recipe, roots)
    measured = _measured(runs_dir)
    plan = make_plan(
        recipe,
        filled,
        hardware=row,
        num_samples=None if certificate else count_samples(recipe, roots),
        certificate=certificate,
        roots=roots,
        measured=measured,
        price=price,
    )
    steps, _ = steps_for_hours(recipe, plan.steps)
    papers = filled.device == "cuda" and request.gpu is None and recipe.hardware is not None
    if not papers or plan.hours is None or steps is None:
        return plan, None
    workload = Workload.of(recipe, roots)
    space = SearchSpace(workload=workload, request=request, measured=measured)
    return plan, alternatives(space, steps, plan.execution.world_size)


def _measured(runs_dir: Path) -> dict[str, Efficiency]:
    """What earlier runs reached, where there are any: nothing that reads runs is imported else."""
    if not runs_dir.is_dir():
        return {}
    from densekit.planner.calibrate import measured_efficiency

    return measured_efficiency(runs_dir)


def reported(recipe: Recipe) -> dict[str, float]:
    """What the paper reports for this recipe, by title of the benchmark.

    Empty for a stage that nobody scored, and for a recipe that was changed.
    """
    if (
        recipe.paper is None
        or recipe.name not in recipe_names()
        or load_recipe(recipe.name).math() != recipe.math()
    ):
        return {}
    from densekit.recipes.paper import load_paper

    paper = load_paper()
    return {
        paper.benchmarks[name].title: score.value
        for name, score in paper.scores(recipe.name).items()
    }


def count_samples(recipe: Recipe, roots: Roots) -> int | None:
    """Entries of the recipe's own annotation file, when it is here and the recipe does not state
    the number.

    Raises DataError for a file that is wrong.
    """
    if recipe.data.samples is not None:
        return recipe.data.samples
    path = roots.resolve(recipe.data.annotations)
    if not path.is_file():
        return None
    from densekit.data.annotations import Annotations

    return len(Annotations.load(path, cache=roots.cache))
