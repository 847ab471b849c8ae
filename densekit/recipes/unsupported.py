"""Recipes that cannot run yet: the features each needs, and the nearest recipe that runs."""

from densekit.errors import UsageError
from densekit.recipes.explain import leaves
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.recipe import Feature, Recipe

MISSING: dict[Feature, str] = {
    "dual_tower": "a second vision tower (ConvNeXt, as in Mini-Gemini)",
}


def refuse_unsupported(recipe: Recipe) -> None:
    """Raises UsageError for a recipe that needs missing features; it names them, and the nearest
    recipe that runs.
    """
    if not recipe.waits_for:
        return
    missing = " and ".join(MISSING[feature] for feature in recipe.waits_for)
    raise UsageError(
        f"{recipe.name} needs {', '.join(recipe.waits_for)}: densekit does not support {missing} "
        f"yet; the nearest recipe that runs is {nearest_that_runs(recipe)} (`densekit show "
        f"{recipe.name}` prints the recipe)"
    )


def nearest_that_runs(recipe: Recipe) -> str:
    """Name of the paper's recipe of the same stage that needs no missing feature and differs in the
    fewest values of the math.

    Among equals the shortest name comes first, then the alphabet.
    """
    wanted = _math(recipe)

    def distance(other: Recipe) -> tuple[int, int, str]:
        values = _math(other)
        differing = sum(wanted.get(field) != values.get(field) for field in {*wanted, *values})
        return differing, len(other.name), other.name

    shipped = map(load_recipe, recipe_names())
    able = [
        other
        for other in shipped
        if other.stage == recipe.stage and not (other.waits_for or other.assets)
    ]
    return min(able, key=distance).name


def _math(recipe: Recipe) -> dict[tuple[str, ...], object]:
    return {
        field: value
        for field, value in leaves(recipe.math().as_json())
        if field not in (("name",), ("needs",))
    }
