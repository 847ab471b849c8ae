"""Find a recipe, follow `extends`, apply --set, and say file, line and field when something is wrong."""

import copy
import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from densekit.errors import UsageError
from densekit.recipe.schema import Recipe

RECIPES_DIR = Path(__file__).resolve().parents[2] / "recipes"
NOT_RECIPES = ("paper", "revisions")
"""Files beside the recipes that hold something else: reported scores, and commits of models and data."""
ROOTS = ("data", "models", "cache")
WHOLE = ("connector",)
"""A child that writes this section replaces it: kind, layers and groups belong together."""
_PATH_FIELDS = (
    ("models", "language_model"),
    ("models", "vision_tower"),
    ("models", "tokenizer"),
    ("models", "connector"),
    ("data", "annotations"),
    ("data", "images"),
    ("probe", "questions"),
    ("probe", "images"),
)


@dataclass
class Document:
    """A YAML mapping with the place (file:line) every key came from; keys of `places` are field paths."""

    values: dict[str, Any]
    places: dict[tuple[str, ...], str]
    files: tuple[Path, ...] = ()
    """The files it was read from, the farthest parent first."""
    needs_from: Path | None = None
    """Folder of the file that wrote `needs`."""

    def place(self, field: Sequence[str]) -> str | None:
        """Where a field, or the nearest section around it, was written: file:line or `--set ...`."""
        found = (self.places.get(tuple(field[:depth])) for depth in range(len(field), 0, -1))
        return next((place for place in found if place), None)


class _Loader(yaml.SafeLoader):
    """YAML in which a value that cannot be what it looks like is an error with its line, as all others are."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()  # "\\ud800" is a text that nobody could write or hash
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the kit."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml") if path.stem not in NOT_RECIPES)


def find_recipe(name: str, *, relative_to: Path | None = None) -> Path:
    """The file of a recipe given by name or by path. UsageError when there is none."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(_absolute(name, relative_to or Path.cwd()))
        if not path.is_file():
            problem = "is a folder, not a YAML file" if path.is_dir() else "does not exist"
            hint = f"; did you mean {path.stem}?" if path.stem in recipe_names() else ""
            raise UsageError(f"recipe file {path} {problem}{hint}")
        return path
    for directory in (*([relative_to] if relative_to else []), RECIPES_DIR):
        if directory == RECIPES_DIR and name in NOT_RECIPES:
            continue
        if (directory / f"{name}.yaml").is_file():
            return directory / f"{name}.yaml"
    close = difflib.get_close_matches(name, recipe_names(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`densekit recipes` lists them"
    raise UsageError(f"no recipe named {name!r}; {hint} (a file of your own: give its path, ending in .yaml)")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name or path with `key=value` overrides applied last.

    Raises UsageError that names file, line and field for anything that is wrong with it.
    """
    return load_with_places(name, overrides)[0]


def load_with_places(name: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Document]:
    """As load_recipe, and the document that says where every value was written."""
    path = find_recipe(name)
    document = _read_with_parents(path, seen=())
    document.values.setdefault("name", path.stem)
    for override in overrides:
        _apply_override(document, override)
    try:
        return Recipe.model_validate(document.values), document
    except ValidationError as error:
        raise UsageError(_explain(error, document, path)) from None


def load_needed(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the stage-1 recipe that `recipe` (itself loaded as `name`) needs."""
    assert recipe.needs is not None
    path = find_recipe(name)
    written_in = _read_with_parents(path, seen=()).needs_from or path.parent
    return load_recipe(str(find_recipe(recipe.needs, relative_to=written_in)), overrides)


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> Document:
    if path in seen:
        raise UsageError(f"{path}: `extends` goes in a circle: {' -> '.join(p.name for p in (*seen, path))}")
    document = _read(path)
    parent = document.values.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str):
        raise UsageError(f"{document.places[('extends',)]}: `extends` takes the name or path of one recipe")
    try:
        parent_path = _find_parent(parent, path)
    except UsageError as error:
        raise UsageError(f"{document.places[('extends',)]}: `extends`: {error}") from None
    base = _read_with_parents(parent_path, (*seen, path))
    base.values.pop("name", None)
    kept = {field: place for field, place in base.places.items() if not _replaced(field, document.values)}
    return Document(
        _merge(base.values, document.values),
        {**kept, **document.places},
        (*base.files, path),
        document.needs_from or base.needs_from,
    )


def _find_parent(parent: str, path: Path) -> Path:
    for directory in (path.parent, RECIPES_DIR):
        nested = directory / f"{parent}.yaml"
        if nested.is_file():
            return nested.resolve()
    return find_recipe(parent, relative_to=path.parent)


def _read(path: Path) -> Document:
    try:
        document = _parse(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return copy.deepcopy(document)


@functools.lru_cache(maxsize=256)  # parents are shared; the text is part of the key, so an edited file is read anew
def _parse(path: Path, text: str) -> Document:
    places: dict[tuple[str, ...], str] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: a recipe is a mapping of keys to values")
        _note_places(node, (), path, places)
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{place}: not valid YAML: {problem}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply, or an alias stands inside its own anchor") from None
    _anchor_paths(values, path.parent)
    return Document(values, places, (path,), path.parent if "needs" in values else None)


def _note_places(
    node: yaml.MappingNode, prefix: tuple[str, ...], path: Path, places: dict[tuple[str, ...], str]
) -> None:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{path}:{key.start_mark.line + 1}: a key is one word, not a list or a mapping")
        field = (*prefix, str(key.value))
        if field in places:
            raise UsageError(f"{path}:{key.start_mark.line + 1}: `{'.'.join(field)}` is written twice")
        places[field] = f"{path}:{key.start_mark.line + 1}"
        if isinstance(value, yaml.MappingNode):
            _note_places(value, field, path, places)


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
    except (RuntimeError, ValueError):  # no such ~user, a link to itself, a NUL: no such file, as whoever opens it says
        return str(directory / path)


def _replaced(field: tuple[str, ...], child: Mapping[str, Any]) -> bool:
    """Whether a field below a section of the parent is gone, because the child wrote the section as a whole."""
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
    if not separator or not all(key.split(".")):
        raise UsageError(f"--set {override!r}: write it as key=value, for example optimizer.learning_rate=1e-4")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        raise UsageError(f"--set {override!r}: the value is not valid YAML") from None
    field = tuple(key.split("."))
    target = document.values
    for depth, parent in enumerate(field[:-1], start=1):
        child = target.get(parent)
        if child is None:
            child = target[parent] = {}
            document.places[field[:depth]] = f"--set {override}"
        if not isinstance(child, dict):
            raise UsageError(f"--set {override!r}: `{parent}` is a value, not a section")
        target = child
    target[field[-1]] = value
    document.places[field] = f"--set {override}"
    _anchor_paths(document.values, Path.cwd())


def _explain(error: ValidationError, document: Document, path: Path) -> str:
    lines = []
    for item in error.errors():
        field = tuple(str(part) for part in item["loc"] if part != "[key]")
        place = document.place(field) or str(path)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_suggest(field)}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] in ("model_type", "dict_type"):
            message = f"is a section of keys (got {item['input']!r})"
        elif "input" in item and not isinstance(item["input"], dict):
            message += f" (got {item['input']!r})"
        lines.append(f"{place}: `{'.'.join(field) or 'recipe'}`: {message}")
    return "\n".join(lines)


def _suggest(field: tuple[str, ...]) -> str:
    model: Any = Recipe
    for name in field[:-1]:
        info = model.model_fields.get(name) if isinstance(model, type) and issubclass(model, BaseModel) else None
        candidates = [info.annotation, *getattr(info.annotation, "__args__", ())] if info else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    if model is None:
        return ""
    known = list(model.model_fields)
    close = difflib.get_close_matches(field[-1], known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known keys here: {', '.join(known)}"
