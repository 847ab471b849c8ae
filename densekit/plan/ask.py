"""What `densekit plan` is asked about: the GPUs of the command line, else the paper's, else this processor."""

from collections.abc import Mapping
from dataclasses import dataclass

from densekit.capability import Device
from densekit.errors import UsageError
from densekit.plan.alternatives import Alternative, alternatives
from densekit.plan.estimate import job_of, steps_for_hours
from densekit.plan.execution import Plan
from densekit.plan.hardware import Hardware, hardware
from densekit.plan.search import Fixed, usual_nodes
from densekit.recipe.schema import Recipe
from densekit.run.roots import Roots


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
    if gpu == "cpu":
        device, gpu = device or "cpu", None
    elif gpu is not None and device == "cpu":
        raise UsageError(f"--gpu {gpu} --device cpu: one of the two")
    if device is None:
        device = "cuda" if gpu or (paper and paper.gpu != "cpu") else "cpu"
    if device == "cpu":
        return Target(device="cpu", hardware=None, gpus=1 if gpus is None else gpus, nodes=nodes or 1, papers=False)
    name = gpu or (paper.gpu if paper else None)
    count = gpus if gpus is not None else paper.gpus if paper else recipe.reference.gpus
    row = hardware(name) if name else None
    if nodes is None:
        as_printed = paper is not None and (name, count) == (paper.gpu, paper.gpus)
        nodes = paper.nodes if paper and as_printed else usual_nodes(row, count) if row else 1
    return Target(device="cuda", hardware=row, gpus=count, nodes=nodes, papers=gpu is None and paper is not None)


def other_places(
    recipe: Recipe, plan: Plan, fixed: Fixed, roots: Roots, measured: Mapping[str, tuple[float, float]]
) -> list[Alternative]:
    """Where else the recipe of a plan fits, what `fixed` says left as it is; empty where hours are not known."""
    steps, _ = steps_for_hours(recipe, plan.steps)
    if steps is None or plan.hours is None:
        return []
    return alternatives(job_of(recipe, roots, fixed, measured), steps, plan.gpus)


def count_samples(recipe: Recipe, roots: Roots) -> int | None:
    """Entries of the recipe's own annotation file, when it is here and the recipe does not state the number.

    Raises DataError for a file that is wrong.
    """
    if recipe.data.samples is not None:
        return recipe.data.samples
    path = roots.resolve(recipe.data.annotations)
    if not path.is_file():
        return None
    from densekit.datasets.annotations import Annotations

    return len(Annotations.load(path))
