"""What `densekit plan` is asked about: the GPUs of the command line, else the paper's, else this
processor.
"""

from dataclasses import dataclass
from pathlib import Path

from densekit.errors import UsageError
from densekit.planner.alternatives import Alternative, alternatives
from densekit.planner.calibrate import measured_efficiency
from densekit.planner.certificates import cached_certificate, make_certificate
from densekit.planner.estimate import job_of, steps_for_hours
from densekit.planner.plan import Plan, make_plan
from densekit.planner.search import usual_nodes
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Hardware, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Device


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a plan is made for."""

    device: Device
    hardware: Hardware | None
    gpus: int
    nodes: int
    papers: bool
    """Whether it is what the paper used, because nothing else was asked for."""


def target_of(
    recipe: Recipe,
    *,
    device: Device | None = None,
    gpu: str | None = None,
    gpus: int | None = None,
    nodes: int | None = None,
) -> Target:
    """Fill in what is None.

    Raises UsageError for a GPU that is not known, and for a GPU with --device cpu.
    """
    paper = recipe.hardware
    if gpu is not None and device is not None and (gpu == "cpu") != (device == "cpu"):
        raise UsageError(f"--gpu {gpu} --device {device}: one of the two")
    if device is None:
        device = (
            "cpu"
            if gpu == "cpu" or (gpu is None and (paper is None or paper.gpu == "cpu"))
            else "cuda"
        )
    if device == "cpu":
        count, nodes = 1 if gpus is None else gpus, 1 if nodes is None else nodes
        return Target(device="cpu", hardware=None, gpus=count, nodes=nodes, papers=False)
    count = gpus if gpus is not None else paper.gpus if paper else recipe.reference.gpus
    row = (
        hardware(gpu) if gpu is not None else hardware(paper.gpu, "hardware.gpu") if paper else None
    )
    if nodes is None:
        as_printed = paper is not None and (row and row.name, count) == (paper.gpu, paper.gpus)
        nodes = paper.nodes if paper and as_printed else usual_nodes(row, count) if row else 1
    return Target(
        device="cuda",
        hardware=row,
        gpus=count,
        nodes=nodes,
        papers=gpu is None and paper is not None,
    )


def answer(
    recipe: Recipe,
    request: ExecutionRequest,
    roots: Roots,
    runs_dir: Path,
    *,
    price: float | None = None,
    certify: bool = False,
) -> tuple[Plan, list[Alternative] | None]:
    """The plan that was asked for and, where no GPU was named for a recipe of the paper, where else
    it fits.

    Raises UsageError for what cannot work, DataError for data that is wrong.
    """
    target = target_of(
        recipe,
        device=request.device,
        gpu=request.gpu,
        gpus=request.world_size,
        nodes=request.nodes,
    )
    certificate = make_certificate(recipe, roots) if certify else cached_certificate(recipe, roots)
    measured = measured_efficiency(runs_dir)
    plan = make_plan(
        recipe,
        request.model_copy(
            update={
                "device": target.device,
                "world_size": target.gpus,
                "nodes": target.nodes,
            }
        ),
        hardware=target.hardware,
        num_samples=None if certificate else count_samples(recipe, roots),
        certificate=certificate,
        roots=roots,
        measured=measured,
        price=price,
    )
    steps, _ = steps_for_hours(recipe, plan.steps)
    if not target.papers or plan.hours is None or steps is None:
        return plan, None
    return plan, alternatives(
        job_of(recipe, roots, request, measured), steps, plan.execution.world_size
    )


def reported(recipe: Recipe) -> dict[str, float]:
    """What the paper reports for this row, by title of the benchmark.

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

    return len(Annotations.load(path))
