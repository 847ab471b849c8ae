"""Where every value of a recipe comes from: the line that wrote it, the source that was given for
it, what it means (`densekit show NAME --sources`).
"""

import ast
import functools
import inspect
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from densekit.recipes.load import WHOLE, load_with_lines
from densekit.recipes.yaml_lines import RECIPES_DIR, Document, part_of
from densekit.spec.capability import generation_of
from densekit.spec.hardware import hardware
from densekit.spec.ledger import ledger_lines
from densekit.spec.recipe import Recipe
from densekit.spec.types import Dtype

SCHEMA_DEFAULT = "schema default"
FILE_NAME = "name of the file"
_OVERRIDE = "--set "


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One value of a resolved recipe."""

    field: str
    value: Any
    place: str
    """file:line, `--set ...`, `schema default`, or `name of the file`."""
    source: str | None
    """What `sources` says about it; None also where the text was written about a value that is
    overridden since.
    """
    meaning: str
    """What the schema says about the field."""


def explain(name: str, overrides: Sequence[str] = ()) -> list[Explained]:
    """Every value of a recipe in the order of its schema, without `sources` and `notes`. Raises
    UsageError.
    """
    recipe, document = load_with_lines(name, overrides)
    values = recipe.model_dump(mode="json", exclude={"sources", "notes"})
    return [
        Explained(
            field=".".join(field),
            value=value,
            place=_shown(_line(field, document)),
            source=_source(field, recipe.sources, document),
            meaning=_meaning(field),
        )
        for field, value in leaves(values)
    ]


def resolved(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe with everything it inherits, as plain values; of its `sources` those that were
    written about the value that holds. Raises UsageError.
    """
    recipe, document = load_with_lines(name, overrides)
    values = recipe.model_dump(mode="json")
    fields = [field for field, _ in leaves({**values, "sources": {}, "notes": []})]
    sources: dict[str, str] = {}
    for key, text in recipe.sources.items():
        below = [field for field in fields if _nearest(field, recipe.sources) == key]
        held = [field for field in below if _source(field, recipe.sources, document)]
        # Of a section some of whose values were overridden, the others keep the text.
        names = [key] if held == below else [".".join(field) for field in held]
        sources |= dict.fromkeys(names, text)
    return {**values, "sources": sources}


def report(values: list[Explained]) -> list[str]:
    """Lines for people: each value, the line that wrote it, and below its source, or else what the
    field means.
    """
    lines = []
    for entry in values:
        value = json.dumps(entry.value, ensure_ascii=False)
        lines.append(f"{entry.field} = {value}  [{entry.place}]")
        text = entry.source or f"({entry.meaning})"
        lines.append(f"    {text}")
    return lines


def ledger_of(recipe: Recipe) -> list[str]:
    """The ledger's lines on the paper's hardware, whose dtype decides which keys matter."""
    gpu = recipe.hardware.gpu if recipe.hardware else "cpu"
    dtype: Dtype = "fp32" if gpu == "cpu" else generation_of(hardware(gpu).capability).dtype
    return ledger_lines(recipe.math(), dtype)


def leaves(
    values: Mapping[str, Any], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything in nested mappings that is not itself a mapping with entries."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _line(field: tuple[str, ...], document: Document) -> str:
    value: Any = document.values
    for name in field:
        if not isinstance(value, Mapping) or name not in value:
            return SCHEMA_DEFAULT
        value = value[name]
    return document.line(field) or FILE_NAME


def _source(field: tuple[str, ...], sources: Mapping[str, str], document: Document) -> str | None:
    key = _nearest(field, sources)
    if key is None:
        return None
    described = _rank(document.line(("sources", key)), document)
    line = _line(field, document)
    around = document.line(field)
    if line == SCHEMA_DEFAULT and around and (around.startswith(_OVERRIDE) or field[:1] == WHOLE):
        line = around  # the section was written as a whole, and left this value to its default
    return sources[key] if described >= _rank(line, document) else None


def _nearest(field: tuple[str, ...], sources: Mapping[str, str]) -> str | None:
    """The key of `sources` that speaks of a field: its own, or that of the section around it."""
    keys = (".".join(field[:depth]) for depth in range(len(field), 0, -1))
    return next((key for key in keys if key in sources), None)


def _meaning(field: tuple[str, ...]) -> str:
    """The docstring of a field of the schema; of the nearest one above for what has none (an entry
    of `ledger`).
    """
    part: type[BaseModel] | None = Recipe
    meaning = ""
    for name in field:
        if part is None or name not in part.model_fields:
            break
        texts = (texts[name] for texts in docstrings(part) if name in texts)
        meaning = next(texts, meaning)
        part = part_of(part.model_fields[name].annotation)
    return " ".join(meaning.split())


def docstrings(part: type[BaseModel]) -> Iterator[dict[str, str]]:
    """By field, what a part of the schema says about it, and then what each base of it says."""
    for base in part.__mro__:
        if issubclass(base, BaseModel) and base is not BaseModel:
            yield _docstrings_of(base.__module__).get(base.__name__, {})


@functools.cache
def _docstrings_of(module: str) -> dict[str, dict[str, str]]:
    """By class and field of a module. pydantic can read them too, but at every start of the
    program.
    """
    found: dict[str, dict[str, str]] = {}
    for part in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(part, ast.ClassDef):
            fields = found.setdefault(part.name, {})
            for statement, after in itertools.pairwise(part.body):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    text = after.value if isinstance(after, ast.Expr) else None
                    fields[statement.target.id] = (
                        str(text.value) if isinstance(text, ast.Constant) else ""
                    )
    return found


def _rank(line: str | None, document: Document) -> int:
    """How near to the recipe itself something was written: 0 for a default, then parents first,
    `--set` last.
    """
    if line is None or line in (SCHEMA_DEFAULT, FILE_NAME):
        return 0
    if line.startswith(_OVERRIDE):
        return len(document.files) + 1
    return document.files.index(Path(line.rpartition(":")[0])) + 1


def _shown(line: str) -> str:
    """A file of the kit by its path from the root."""
    try:
        return Path(line).relative_to(RECIPES_DIR.parent).as_posix()
    except ValueError:
        return line
