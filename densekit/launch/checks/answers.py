"""Whether an answer fits behind an image: what a recipe's numbers say before a run directory
exists. The trainer counts the labels themselves before its first step (`train/teaches.py`).
"""

from densekit.data.annotations import Annotations
from densekit.errors import DataError, DensekitError
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
    max_length = recipe.data.max_length
    if max_length > image_tokens or not annotations.has_images:
        return
    up_to, usual = "", "paper: 2048"
    if recipe.data.anyres:
        up_to, usual = "up to ", "the AnyRes recipes have 4096"
    raise DataError(
        f"recipe {recipe.name}: data.max_length is {max_length}, but an image alone has "
        f"{up_to}{image_tokens} tokens: every answer behind such a one would be cut off, and "
        f"nothing learnt from it; give more than {image_tokens} plus the length of question and "
        f"answer ({usual})"
    )
