"""Whether an answer fits behind an image: what a recipe's numbers say before a run directory
exists. The trainer counts the labels themselves before its first step (`train/teaches.py`).
"""

from densekit.data.annotations import Annotations
from densekit.errors import DataError, DensekitError
from densekit.planner.notes import no_room_for_answers
from densekit.spec.architectures import shape_of
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def check_answers_fit(recipe: Recipe, annotations: Annotations, roots: Roots) -> None:
    """Raise DataError where `data.max_length` leaves no token behind an image and there are images.

    A model whose shape is unknown is refused elsewhere, with the reason.
    """
    try:
        image_tokens = shape_of(recipe, roots).connector.image_tokens
    except DensekitError:
        return
    problem = no_room_for_answers(recipe, image_tokens)
    if problem is not None and annotations.has_images:
        raise DataError(f"recipe {recipe.name}: {problem}")
