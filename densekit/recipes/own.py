"""`densekit new`: both stages of a recipe of one's own, which extend those of another, with the
batch scaled to data that is smaller than the paper's.
"""

import math
import os
import re
from pathlib import Path

from densekit.errors import UsageError
from densekit.recipes.load import find_recipe, load_recipe, needed_name, recipe_names
from densekit.recipes.own_text import OwnParts, Scaled, recipe_text
from densekit.recipes.yaml_lines import RECIPES_DIR
from densekit.spec.recipe import Recipe

FEWEST_STEPS = 100
"""Below it the batch is halved: 3 of 100 steps warm up, and the rate is felt. Chosen here."""
SMALLEST_BATCH = 16
"""The batch is not halved below it. Chosen here."""


def stage_names(name: str) -> tuple[str, str]:
    """Names of the two recipes: `my`, `my_stage1` and `my_stage2` all give the same. Raises
    UsageError for one that can name no run directory.
    """
    stem = re.sub(r"_?stage[12]$", "", name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", stem):
        raise UsageError(
            f"new {name}: runs are named after it; use up to 80 letters, digits, `.`, `_` and `-`, "
            "a letter or digit first, for example my_stage1"
        )
    return f"{stem}_stage1", f"{stem}_stage2"


def parents(name: str) -> tuple[str, str]:
    """Both stages of the recipe `name`, whichever of them it is. Raises UsageError where there is
    no one answer.
    """
    recipe = load_recipe(name)
    if recipe.stage == 2:
        if recipe.needs is None:
            raise UsageError(f"--from {name}: it has no stage 1; name a recipe with `needs`")
        return needed_name(recipe, name), name
    path = find_recipe(name)
    others = recipe_names() if path.parent == RECIPES_DIR else _beside(path)
    same = [other for other in others if Path(other).stem == path.stem.replace("stage1", "stage2")]
    found = [other for other in same if _starts_from(other, path)]
    found = found or [other for other in others if _starts_from(other, path)]
    if len(found) != 1:
        known = f"these start from it: {', '.join(found)}" if found else "none starts from it"
        raise UsageError(f"--from {name}: name its stage 2 instead; {known}")
    return name, found[0]


def _beside(path: Path) -> list[str]:
    return [str(other) for other in sorted(path.parent.glob("*.yaml")) if other != path]


def _starts_from(name: str, stage1: Path) -> bool:
    try:
        recipe = load_recipe(name)
        return recipe.needs is not None and find_recipe(needed_name(recipe, name)) == stage1
    except UsageError:
        return False  # something else lies beside it


def scaled(parent: Recipe, samples: int | None) -> Scaled:
    """The parent's batch, halved until `samples` make FEWEST_STEPS steps: first what a device
    takes, then the devices.
    """
    reference = parent.reference
    shown = None if samples is None else samples * parent.optimizer.epochs

    def steps() -> int | None:
        return None if shown is None else math.ceil(shown / reference.global_batch_size)

    while (now := steps()) is not None and now < FEWEST_STEPS:
        each, gpus = reference.per_device_batch_size, reference.gpus
        if reference.global_batch_size // 2 < SMALLEST_BATCH or (each % 2 and gpus % 2):
            break
        smaller = {"gpus": gpus // 2} if each % 2 else {"per_device_batch_size": each // 2}
        reference = reference.model_copy(update=smaller)
    factor = math.sqrt(reference.global_batch_size / parent.reference.global_batch_size)
    return Scaled(reference=reference, factor=factor, steps=steps())


def write_own(name: str, start: str, parts: OwnParts, folder: Path) -> tuple[Path, Path]:
    """Write both stages into `folder`, and load them. Raises UsageError where one is there already,
    and for parents that cannot be extended.
    """
    names = stage_names(name)
    paths = (folder / f"{names[0]}.yaml", folder / f"{names[1]}.yaml")
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists; choose another name or --to, or remove it")
    texts = []
    for own, parent in zip(names, parents(start), strict=True):
        recipe = load_recipe(parent)
        fit = scaled(recipe, parts.data(recipe.stage).samples)
        texts.append(recipe_text(own, names[0], recipe, _from(parent, folder), parts, fit))
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    for path in paths:
        load_recipe(str(path))
    return paths


def _from(parent: str, folder: Path) -> str:
    """What `extends` says: a name, or the path of a file of one's own from the folder."""
    path = find_recipe(parent)
    return path.stem if path.parent == RECIPES_DIR else os.path.relpath(path, folder)
