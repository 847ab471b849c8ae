"""Find a recipe, follow `extends`, apply --set, and say file, line and field when something is
wrong.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densekit.errors import UsageError
from densekit.recipes.yaml_lines import (
    MAX_BYTES,
    RECIPES_DIR,
    Document,
    error_lines,
    parse_value,
    read_document,
    shorten,
)
from densekit.spec.recipe import Recipe

NOT_RECIPES = ("paper", "revisions")
"""Files beside the recipes that hold something else: reported scores, and commits of models and
data.
"""
MAX_DEPTH = 20
"""Dots in the key of an override."""
ROOTS = ("data", "models", "cache")
WHOLE = ("connector",)
"""A child that writes this section replaces it: kind, layers and groups belong together."""
_PATH_FIELDS = (
    ("models", "language_model"),
    ("models", "vision_tower"),
    ("models", "high_resolution_tower"),
    ("models", "tokenizer"),
    ("models", "connector"),
    ("data", "annotations"),
    ("data", "images"),
    ("probe", "questions"),
    ("probe", "images"),
)


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the kit."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml") if path.stem not in NOT_RECIPES)


def find_recipe(name: str, *, relative_to: Path | None = None) -> Path:
    """The file of a recipe given by name or by path. UsageError when there is none."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(_absolute(name, relative_to or Path.cwd()))
        if not path.is_file():
            problem = "is a folder, not a YAML file" if path.is_dir() else "does not exist"
            shipped = path.stem in recipe_names()
            hint = (
                f"did you mean {path.stem}?"
                if shipped
                else "correct the path, or give a name that `densekit recipes` lists"
            )
            raise UsageError(f"recipe file {path} {problem}; {hint}")
        return path
    for directory in (*([relative_to] if relative_to else []), RECIPES_DIR):
        if directory == RECIPES_DIR and name in NOT_RECIPES:
            continue
        if (directory / f"{name}.yaml").is_file():
            return directory / f"{name}.yaml"
    close = difflib.get_close_matches(name, recipe_names(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`densekit recipes` lists them"
    raise UsageError(
        f"no recipe named '{name}'; {hint} (for a file of your own give its path, ending in .yaml)"
    )


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name or path with `key=value` overrides applied last.

    Raises UsageError that names file, line and field for anything that is wrong with it.
    """
    return load_with_lines(name, overrides)[0]


def load_with_lines(name: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Document]:
    """As load_recipe, and the document that says where every value was written."""
    path = find_recipe(name)
    document = _read_with_parents(path, seen=())
    document.values.setdefault("name", path.stem)
    for override in overrides:
        _apply_override(document, override)
    try:
        return Recipe.model_validate(document.values), document
    except ValidationError as error:
        raise UsageError(error_lines(error, document, Recipe)) from None


def load_needed(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the stage-1 recipe that `recipe` (itself loaded as `name`) needs."""
    return load_recipe(needed_name(recipe, name), overrides)


def needed_name(recipe: Recipe, name: str) -> str:
    """What a command line calls the recipe that `recipe` (loaded as `name`) needs: its name, or the
    path of a file of one's own.
    """
    assert recipe.needs is not None
    path = find_recipe(name)
    written_in = _read_with_parents(path, seen=()).needs_from or path.parent
    needed = find_recipe(recipe.needs, relative_to=written_in)
    return needed.stem if needed.parent == RECIPES_DIR else str(needed)


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> Document:
    if path in seen:
        raise UsageError(
            f"{path}: `extends` is circular: {' -> '.join(p.name for p in (*seen, path))}"
        )
    document = read_document(path)
    _anchor_paths(document.values, path.parent)
    needs_from = path.parent if "needs" in document.values else None
    parent = document.values.pop("extends", None)
    if parent is None:
        document.needs_from = needs_from
        return document
    if not isinstance(parent, str):
        raise UsageError(
            f"{document.lines[('extends',)]}: `extends` takes the name or path of one recipe"
        )
    try:
        parent_path = _find_parent(parent, path)
    except UsageError as error:
        raise UsageError(f"{document.lines[('extends',)]}: `extends`: {error}") from None
    base = _read_with_parents(parent_path, (*seen, path))
    base.values.pop("name", None)
    kept = {
        field: line for field, line in base.lines.items() if not _replaced(field, document.values)
    }
    return Document(
        _merge(base.values, document.values),
        {**kept, **document.lines},
        (*base.files, path),
        needs_from or base.needs_from,
    )


def _find_parent(parent: str, path: Path) -> Path:
    for directory in (path.parent, RECIPES_DIR):
        nested = directory / f"{parent}.yaml"
        if nested.is_file():
            return nested.resolve()
    return find_recipe(parent, relative_to=path.parent)


def _anchor_paths(values: dict[str, Any], directory: Path) -> None:
    """Make plain relative paths absolute, from the folder of the file that wrote them."""
    for section, field in _PATH_FIELDS:
        part = values.get(section)
        if isinstance(part, dict) and isinstance(part.get(field), str):
            root = part[field].partition(":")[0]
            if root not in ROOTS:
                part[field] = _absolute(part[field], directory)


def _absolute(path: str, directory: Path) -> str:
    try:
        return str((directory / Path(path).expanduser()).resolve())
    except (RuntimeError, ValueError):
        # No such ~user, a link to itself: whoever opens it finds no such file. A NUL is
        # refused with the other values.
        return str(directory / path)


def _replaced(field: tuple[str, ...], child: Mapping[str, Any]) -> bool:
    """Whether a field below a section of the parent is gone, because the child wrote the section as
    a whole.
    """
    for depth, key in enumerate(field[:-1], start=1):
        if key not in child:
            return False
        if not isinstance(child[key], dict) or field[:depth] == WHOLE:
            return True
        child = child[key]
    return False


def _merge(base: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and (key,) != WHOLE:
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply_override(document: Document, override: str) -> None:
    key, separator, text = override.partition("=")
    shown = shorten(override)
    if not separator or not all(key.split(".")):
        raise UsageError(
            f"--set {shown}: write it as key=value, for example optimizer.learning_rate=1e-4"
        )
    if len(override) > MAX_BYTES or key.count(".") > MAX_DEPTH:
        raise UsageError(f"--set {shown}: too long")
    try:
        value = parse_value(text)
    except ValueError as error:
        raise UsageError(f"--set {shown}: {error}") from None
    field = tuple(key.split("."))
    target = document.values
    for depth, parent in enumerate(field[:-1], start=1):
        child = target.get(parent)
        if child is None:
            child = target[parent] = {}
            document.lines[field[:depth]] = f"--set {shown}"
        if not isinstance(child, dict):
            raise UsageError(f"--set {shown}: `{parent}` is a value, not a section")
        target = child
    target[field[-1]] = value
    below = [known for known in document.lines if known[: len(field)] == field]
    for known in below:  # of a section that is replaced as a whole, no line of a file is left
        del document.lines[known]
    document.lines[field] = f"--set {shown}"
    _anchor_paths(document.values, Path.cwd())
