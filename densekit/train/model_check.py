"""The models of a run, inspected where the launcher could not do it."""

from densekit.model.inspection import inspect
from densekit.ranks.collectives import gather_objects
from densekit.runs.model_verdicts import (
    installed_packages,
    keep_problems,
    known_problems,
    refuse_models,
    stage_parts,
)
from densekit.spec.math import Math
from densekit.spec.roots import Roots


def check_models(math: Math, roots: Roots, *, main: bool) -> None:
    """Refuse models that cannot be trained right, on every rank; rank 0 inspects them unless that
    was done before with the same packages. Raises DataError with everything that is wrong.
    """
    parts = stage_parts(math, roots)
    if parts is None:
        return
    problems: list[str] = []
    if main:
        environment = installed_packages()
        known = known_problems(parts, roots.cache, environment)
        problems = inspect(parts) if known is None else known
        if known is None:
            keep_problems(parts, roots.cache, environment, problems)
    refuse_models(gather_objects(problems)[0])
