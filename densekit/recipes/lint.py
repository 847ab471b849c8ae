"""Checking the YAML files of a folder as recipes, each with everything it inherits and needs."""

from collections.abc import Iterator
from pathlib import Path

from densekit.errors import UsageError
from densekit.recipes.load import NOT_RECIPES, load_needed, load_with_lines
from densekit.recipes.paper import load_paper
from densekit.recipes.revisions import load_revisions
from densekit.recipes.yaml_lines import RECIPES_DIR, Document, read_document
from densekit.spec.check import Check
from densekit.spec.recipe import Recipe

SUFFIXES = (".yaml", ".yml")
RECIPE_KEYS = ("extends", "stage", "models")
"""A file without any of them is no recipe: compose files and settings lie beside recipes too."""
UNTOLD = ("name", "title", "stage", "extends", "sources", "notes", "paper", "needs")
"""Keys that need no source."""


def lint(place: Path) -> list[Check]:
    """A check of every YAML file in a folder and below it, or of the one file `place`.

    Hidden folders are passed over. A file that is no recipe by itself is checked with those that
    extend it. Raises UsageError where there is no file to check.
    """
    if not place.exists():
        raise UsageError(f"{place} does not exist; give a folder of recipes, or one file")
    found = [place] if place.is_file() else sorted(_files(place))
    if not found:
        raise UsageError(f"{place} holds no YAML file; give a folder of recipes, or one file")
    heirs: dict[Path, str] = {}
    checks = {path: _check(path, place, heirs) for path in found}
    return [_of_base(check, heirs.get(path.resolve())) for path, check in checks.items()]


def _of_base(check: Check, heir: str | None) -> Check:
    """A file that fails by itself, and loads as the base of another."""
    if check.state != "fail" or heir is None:
        return check
    return Check(name=check.name, state="ok", message=f"a base: checked with {heir}")


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.suffix in SUFFIXES and not any(part.startswith(".") for part in inside):
            yield path


def _check(path: Path, place: Path, heirs: dict[Path, str]) -> Check:
    """The check of one file; what it extends gets its name in `heirs`."""
    name = path.name if path == place else path.relative_to(place).as_posix()
    try:
        if path.resolve().parent == RECIPES_DIR and path.stem in NOT_RECIPES:
            load_paper(path) if path.stem == "paper" else load_revisions(path)
            return Check(name=name, state="ok", message=f"{path.stem} of the recipes that ship")
        written = read_document(path)
        if not any(key in written.values for key in RECIPE_KEYS):
            keys = ", ".join(f"`{key}`" for key in RECIPE_KEYS)
            message = f"not checked: it has none of {keys}, so it is no recipe"
            return Check(name=name, state="warn", message=message)
        recipe, document = load_with_lines(str(path))
        heirs |= {parent.resolve(): name for parent in document.files[:-1]}
        if recipe.needs is not None:
            load_needed(recipe, str(path))
    except UsageError as error:
        return Check(name=name, state="fail", message=str(error))
    return _advice(name, recipe, written)


def _advice(name: str, recipe: Recipe, written: Document) -> Check:
    """What a good recipe may still lack."""
    untold = sorted(_untold(written))
    if untold and recipe.assets is None:  # a tiny recipe claims nothing
        message = f"no source for {', '.join(untold)}: say under `sources` where they are from"
        return Check(name=name, state="warn", message=message)
    return Check(name=name, state="ok", message=f"stage {recipe.stage}: {recipe.title}")


def _untold(document: Document) -> Iterator[str]:
    """The sections and values of a file that it writes without a word of where they are from."""
    sources = document.values.get("sources")
    told = set(sources) if isinstance(sources, dict) else set()
    for key in document.values:
        if key not in UNTOLD and not any(t == key or t.startswith(f"{key}.") for t in told):
            yield str(key)
