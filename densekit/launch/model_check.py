"""Whether the models of a recipe can be trained, found out before a run directory exists: by a
process of the trainer's environment, once for each model.
"""

import sys
from collections.abc import Sequence

from pydantic import ValidationError

from densekit.errors import UsageError
from densekit.launch.launchers.base import Launcher
from densekit.runs.model_verdicts import keep_problems, known_problems, refuse_models, stage_parts
from densekit.spec.execution import Execution
from densekit.spec.model_parts import ModelParts
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def check_models(
    chain: Sequence[Recipe], roots: Roots, launcher: Launcher, execution: Execution
) -> None:
    """Refuse models that cannot be trained right. Raises DataError with everything that is wrong.

    Models that the kit makes itself are not looked at.
    """
    for recipe in chain:
        parts = stage_parts(recipe.math(), roots)
        if parts is None:
            continue
        environment = launcher.inspection_environment(execution)
        if environment is None:
            print(
                f"{recipe.name}: the models are inspected when the trainer starts (its packages "
                "are not here)",
                file=sys.stderr,
            )
            continue
        problems = known_problems(parts, roots.cache, environment)
        if problems is None:
            problems = launcher.inspect(parts, execution)
            keep_problems(parts, roots.cache, environment, problems)
        refuse_models(problems)


def read_parts(text: str) -> ModelParts:
    """The argument of `densekit inspect`. Raises UsageError for anything else."""
    try:
        return ModelParts.model_validate_json(text)
    except ValidationError:
        raise UsageError("`densekit inspect` takes the folders of the models as JSON") from None
