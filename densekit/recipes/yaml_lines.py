"""One YAML file with file and line of every key, so that an error names file, line and field."""

import copy
import difflib
import functools
import json
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
    """A YAML mapping with the file:line that every key came from, by the path of its field."""

    values: dict[str, Any]
    lines: dict[tuple[str, ...], str]
    files: tuple[Path, ...] = ()
    """The files it was read from, the farthest parent first."""
    needs_from: Path | None = None
    """Folder of the file that wrote `needs`."""

    def line(self, field: Sequence[str]) -> str | None:
        """Where a field, or the section around it, was written: file:line or `--set ...`."""
        around = (self.lines.get(tuple(field[:depth])) for depth in range(len(field), 0, -1))
        return next((line for line in around if line), None)


class _Strict:
    """YAML in which a value that cannot be constructed (a date of month 13) is an error with its
    line, as all others are.
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
    """For any file."""


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


# Parents are shared; the text is part of the key, so an edited file is parsed again.
@functools.lru_cache(maxsize=256)
def _parse(path: Path, text: str) -> Document:
    lines: dict[tuple[str, ...], str] = {}
    try:
        loader = ShippedLoader(text) if path.is_relative_to(RECIPES_DIR) else Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: must be a mapping of keys to values")
        _note_lines(node, (), path, lines)
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}: not valid YAML: {problem}") from None
    except RecursionError:
        raise UsageError(
            f"{path}: nested too deeply, or an alias refers to the anchor it is in"
        ) from None
    return Document(values, lines, (path,))


def _note_lines(
    node: yaml.Node, prefix: tuple[str, ...], path: Path, lines: dict[tuple[str, ...], str]
) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*prefix, str(index))] = f"{path}:{item.start_mark.line + 1}"
            _note_lines(item, (*prefix, str(index)), path, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(
                f"{path}:{key.start_mark.line + 1}: a key must be one word, not a list or a mapping"
            )
        field = (*prefix, str(key.value))
        if field in lines:
            raise UsageError(
                f"{path}:{key.start_mark.line + 1}: `{'.'.join(field)}` is written twice"
            )
        lines[field] = f"{path}:{key.start_mark.line + 1}"
        _note_lines(value, field, path, lines)


def error_lines(error: ValidationError, document: Document, model: type[BaseModel]) -> str:
    """One line for everything that `model` finds wrong with a document: file:line, field, what is
    wrong.
    """
    lines = []
    for item in error.errors():
        field = tuple(str(part) for part in item["loc"] if part != "[key]")
        where = document.line(field) or str(document.files[-1])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_suggest(field, model)}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] in ("model_type", "dict_type"):
            message = f"must be a section of keys (got {_shown(item['input'])})"
        elif "input" in item and not isinstance(item["input"], dict):
            message += f" (got {_shown(item['input'])})"
        lines.append(f"{where}: `{'.'.join(field) or model.__name__.lower()}`: {message}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as YAML would write it, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


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
