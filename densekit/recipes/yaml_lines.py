"""One YAML file with file and line of every key, so that an error names file, line and field."""

import copy
import difflib
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_file
from densekit.files.shipped import SHIPPED

MAX_BYTES = 1 << 18
"""Of a YAML file: some seconds to parse."""
MAX_NODES = 50_000
"""Values of a document with every alias written out."""
MAX_INTEGER = 10**308
MISREAD = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads otherwise than people: 010 is octal, 1:30 has the base 60."""
MAX_SHOWN = 200
"""Characters of a value in a message."""
MAX_PROBLEMS = 10
"""Of one document in a message; the others are counted."""
MAX_DEPTH = 100
"""Brackets inside brackets."""
RECIPES_DIR = SHIPPED / "recipes"


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
            if isinstance(value, int | float) and MISREAD.fullmatch(str(node.value)):
                raise ValueError(
                    f"YAML reads {node.value} as {value}: write the decimal number that is meant"
                )
            if isinstance(value, str):
                value.encode()  # "\\ud800" is a text that nobody could write or hash
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise ValueError("an integer that no float holds")
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from None


class Loader(_Strict, yaml.SafeLoader):
    """For any file."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Refuse depth at the bracket: the scanner's time grows with its square."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)


class ShippedLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """For files that ship: four times as fast, by libyaml, which ends the process on a file nested
    200,000 deep.
    """


def read_document(path: Path) -> Document:
    """Read one YAML file, without its parents. Raises UsageError with file and line."""
    try:
        data = read_file(path, limit=MAX_BYTES, remedy="give the path of a YAML file")
        document = _parse(path, data.decode("utf-8"))
    except DataError as error:
        raise UsageError(str(error)) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return replace(document, values=copy.deepcopy(document.values), lines=document.lines.copy())


# Parents are shared; the text is part of the key, so an edited file is parsed again.
@functools.lru_cache(maxsize=256)
def _parse(path: Path, text: str) -> Document:
    lines: dict[tuple[str, ...], str] = {}
    try:
        loader = ShippedLoader(text) if path.is_relative_to(RECIPES_DIR) else Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: must be a mapping of keys to values")
        check_size(node)
        _note_lines(node, (), str(path), lines)
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


def parse_value(text: str) -> Any:
    """The value that a piece of YAML spells. Raises ValueError, in words, for anything else."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        check_size(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(
            f"the value is not valid YAML: {shorten(problem.splitlines()[0])}"
        ) from None
    except RecursionError:
        raise ValueError("the value is not valid YAML: nested too deeply") from None


def check_size(node: yaml.Node) -> None:
    """Raises ConstructorError for a document of more than MAX_NODES values with every alias written
    out, and for an alias to what it is in. Every node is visited once.
    """
    sizes: dict[int, int | None] = {}
    stack = [(node, False)]
    while stack:
        current, ready = stack.pop()
        children: list[yaml.Node] = []
        if isinstance(current, yaml.SequenceNode):
            children = current.value
        elif isinstance(current, yaml.MappingNode):
            children = [part for pair in current.value for part in pair]
        if ready:
            known = [sizes[id(child)] for child in children]
            if None in known:
                raise _too_large(current, "an alias refers to the anchor it is in")
            size = 1 + sum(known)  # type: ignore[arg-type]
            if size > MAX_NODES:
                raise _too_large(
                    current, f"{size} values with every alias written out; at most {MAX_NODES}"
                )
            sizes[id(current)] = size
        elif id(current) not in sizes:
            sizes[id(current)] = None
            stack += [(current, True), *((child, False) for child in children)]


def _too_large(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _note_lines(
    node: yaml.Node, prefix: tuple[str, ...], path: str, lines: dict[tuple[str, ...], str]
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
    found = error.errors()
    # A list all of whose values are wrong is too short for pydantic as well.
    inside = {item["loc"][:end] for item in found for end in range(len(item["loc"]))}
    found = [item for item in found if item["loc"] not in inside or not item["loc"]]
    for item in found[:MAX_PROBLEMS]:
        field = tuple(str(part) for part in item["loc"] if part != "[key]")
        where = document.line(field) or str(document.files[-1])
        message = item["msg"].removeprefix("Value error, ").replace(" after validation", "")
        message = message.replace("a valid tuple", "a list").replace("Tuple", "List")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_suggest(field, model)}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "path_type":
            message = f"must be a path (got {_shown(item['input'])})"
        elif item["type"] in ("model_type", "dict_type"):
            message = f"must be a section of keys (got {_shown(item['input'])})"
        elif "input" in item and not isinstance(item["input"], dict):
            message += f" (got {_shown(item['input'])})"
        lines.append(f"{where}: `{'.'.join(field) or model.__name__.lower()}`: {message}")
    if (more := len(found) - len(lines)) > 0:
        lines.append(f"{document.files[-1]}: {more} more like these")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as YAML would write it, on one line, shortened."""
    return shorten(json.dumps(value, ensure_ascii=False, default=str))


def shorten(text: str) -> str:
    """A text for a message: its start where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


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
