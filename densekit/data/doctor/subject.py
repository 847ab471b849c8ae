"""What is examined: an annotation file with its images, and what is known about how it is used."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from densekit.data.catalog import DataSet, data_set_of, data_sets
from densekit.data.doctor.pins import Pin, read_pins
from densekit.data.image_tokens import ImageTokens
from densekit.errors import DensekitError, UsageError
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.architectures import shape_of
from densekit.spec.math import MISSING_CEILING, Missing
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Semantics

ENDINGS = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An annotation file, its images and the use a recipe makes of both."""

    name: str
    """As asked for."""
    annotations: Path
    images: Path
    data_set: DataSet | None = None
    """The published one of which this is a copy, by the name of the annotation file."""
    template: str | None = None
    """None: what a template takes is not checked."""
    semantics: Semantics = "faithful"
    max_length: int | None = None
    image_tokens: int = 0
    """Tokens of an average image, where the model's shape is known."""
    sized: ImageTokens | None = None
    """Where an image's tokens depend on its size, and the model's shape is known."""
    tokenizer: Path | None = None
    """Folder of the recipe's tokenizer, where it is there."""
    samples: int | None = None
    """Entries that the recipe expects."""
    pin: Pin | None = None
    """What was pinned of the data set."""
    to_get: str | None = None
    """The command that gets the annotation file, where one does."""
    missing: Missing = "refuse"
    missing_ceiling: float = MISSING_CEILING


def find_subject(name: str, roots: Roots, images: Path | None = None) -> Subject:
    """The subject that a word of the command line names: an annotation file, a data set of the
    catalog, or a recipe.

    A data set is examined as most recipes that train on it read it. `images` takes the place of
    the image folder; that of a bare file is the folder it is in. Raises UsageError.
    """
    path = Path(name)
    if path.suffix.lower() in ENDINGS or path.is_file():
        return Subject(
            name=name,
            annotations=path,
            images=images or path.parent,
            data_set=data_set_of(path.name),
            pin=_pin(data_set_of(path.name), roots),
        )
    data_set = next((entry for entry in data_sets() if entry.name == name), None)
    if data_set is not None:
        return _of_data_set(data_set, roots, images)
    if path.is_dir() and name not in recipe_names():
        raise UsageError(
            f"{name} is a folder: give its annotation file; of parquet files `densekit data unpack "
            f"{name} --to DIR` makes one"
        )
    if name not in recipe_names() and not path.suffix:
        known = ", ".join(entry.name for entry in data_sets())
        raise UsageError(
            f"{name!r} is no recipe, no data set of the catalog ({known}) and no annotation file; "
            "give one of them"
        )
    return subject_of_recipe(name, load_recipe(name), roots, images)


def _of_data_set(data_set: DataSet, roots: Roots, images: Path | None) -> Subject:
    recipes = [
        recipe
        for recipe in map(load_recipe, recipe_names())
        if data_set_of(recipe.data.annotations) == data_set
    ]
    if recipes:
        uses = Counter(recipe.data.model_dump_json() for recipe in recipes)
        common = uses.most_common(1)[0][0]
        recipe = next(one for one in recipes if one.data.model_dump_json() == common)
        return subject_of_recipe(data_set.name, recipe, roots, images)
    raise UsageError(
        f"no recipe trains on {data_set.name}: give its annotation file, and --images for the "
        "folder of its images"
    )


def subject_of_recipe(
    name: str, recipe: Recipe, roots: Roots, images: Path | None = None
) -> Subject:
    """The data of a recipe, as it reads them."""
    data = recipe.data
    tokenizer = roots.resolve(recipe.models.tokenizer_folder)
    folder = images or roots.resolve(data.images)
    image_tokens, sized = 0, None
    with suppress(DensekitError):  # then nothing is said of tokens
        connector = shape_of(recipe, roots).connector
        image_tokens = connector.typical_tokens
        if connector.layout.varies:
            sized = ImageTokens(layout=connector.layout, folder=folder)
    return Subject(
        name=name,
        annotations=roots.resolve(data.annotations),
        images=folder,
        data_set=data_set_of(data.annotations),
        pin=_pin(data_set_of(data.annotations), roots),
        template=data.template,
        semantics=recipe.semantics_of("L1"),
        max_length=data.max_length,
        image_tokens=image_tokens,
        sized=sized,
        tokenizer=tokenizer if tokenizer.is_dir() else None,
        samples=data.samples,
        to_get=_to_get(recipe),
        missing=data.missing,
        missing_ceiling=data.missing_ceiling,
    )


def _to_get(recipe: Recipe) -> str | None:
    if recipe.makes(recipe.data.annotations):
        return f"`densekit run {recipe.name}` makes it first"
    if data_set_of(recipe.data.annotations) is None:
        return None
    return f"`densekit fetch {recipe.name}` gets it"


def _pin(data_set: DataSet | None, roots: Roots) -> Pin | None:
    return read_pins(roots.data).data_sets.get(data_set.name) if data_set else None
