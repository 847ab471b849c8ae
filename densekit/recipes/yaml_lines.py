"""One YAML file with the place of every key, so that whatever is wrong in it is named with file,
line and field.
"""

import copy
import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from densekit.errors import UsageError

RECIPES_DIR = Path(__file__).resolve().parents[2] / "recipes"


@dataclass
class Document:
    """A YAML mapping with the place (file:line) every key came from; keys of `places` are field
    paths.
    """

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


class _Strict:
    """YAML in which a value that cannot be what it looks like is an error with its line, as all
    others are.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)  # type: ignore[misc]
            if isinstance(value, str):
                value.encode()  # "\\ud800" is a text that nobody could write or hash
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from None


class Loader(_Strict, yaml.SafeLoader):
    """For files of anybody."""


class ShippedLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """For files that ship: four times as fast, by libyaml, which ends the process on a file nested
    200,000 deep.
    """


def read_document(path: Path) -> Document:
    """Read one YAML file, without its parents. Raises UsageError with file and line."""
    try:
        document = _parse(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return copy.deepcopy(document)


@functools.lru_cache(
    maxsize=256
)  # parents are shared; the text is part of the key, so an edited file is read anew
def _parse(path: Path, text: str) -> Document:
    places: dict[tuple[str, ...], str] = {}
    try:
        loader = ShippedLoader(text) if path.is_relative_to(RECIPES_DIR) else Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: it has to be a mapping of keys to values")
        _note_places(node, (), path, places)
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{place}: not valid YAML: {problem}") from None
    except RecursionError:
        raise UsageError(
            f"{path}: nested too deeply, or an alias stands inside its own anchor"
        ) from None
    return Document(values, places, (path,))


def _note_places(
    node: yaml.Node, prefix: tuple[str, ...], path: Path, places: dict[tuple[str, ...], str]
) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[(*prefix, str(index))] = f"{path}:{item.start_mark.line + 1}"
            _note_places(item, (*prefix, str(index)), path, places)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(
                f"{path}:{key.start_mark.line + 1}: a key is one word, not a list or a mapping"
            )
        field = (*prefix, str(key.value))
        if field in places:
            raise UsageError(
                f"{path}:{key.start_mark.line + 1}: `{'.'.join(field)}` is written twice"
            )
        places[field] = f"{path}:{key.start_mark.line + 1}"
        _note_places(value, field, path, places)


def told(error: ValidationError, document: Document, model: type[BaseModel]) -> str:
    """One line for everything that `model` finds wrong with a document: where it was written,
    field, what is wrong.
    """
    lines = []
    for item in error.errors():
        field = tuple(str(part) for part in item["loc"] if part != "[key]")
        place = document.place(field) or str(document.files[-1])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_suggest(field, model)}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] in ("model_type", "dict_type"):
            message = f"is a section of keys (got {item['input']!r})"
        elif "input" in item and not isinstance(item["input"], dict):
            message += f" (got {item['input']!r})"
        lines.append(f"{place}: `{'.'.join(field) or model.__name__.lower()}`: {message}")
    return "\n".join(lines)


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The part of a recipe that a field's annotation stands for, `None` beside it or not; None for
    a plain value.
    """
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next(
        (each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)),
        None,
    )


def _suggest(field: tuple[str, ...], model: type[BaseModel]) -> str:
    part: type[BaseModel] | None = model
    for name in field[:-1]:
        info = part.model_fields.get(name) if part else None
        part = part_of(info.annotation) if info else None
    if part is None:
        return ""
    known = list(part.model_fields)
    close = difflib.get_close_matches(field[-1], known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known keys here: {', '.join(known)}"
