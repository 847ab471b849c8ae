"""JSON Schema of recipes and of densekit.yaml, for editors: completion, meanings, mistakes."""

from typing import Any, Literal

from pydantic import BaseModel

from densekit.recipes.explain import docstrings
from densekit.recipes.yaml_lines import part_of
from densekit.spec.recipe import Recipe
from densekit.spec.site import Site

Kind = Literal["recipe", "site"]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
EXTENDS = "Name or path of the recipe that this one starts from; what it does not write stays."


def schema(kind: Kind) -> dict[str, Any]:
    """The schema of a kind of file. Every field carries its meaning.

    A recipe may leave out whatever the one has that it `extends`, in sections too: `densekit lint`
    checks it with everything it inherits.
    """
    model: type[BaseModel] = Recipe if kind == "recipe" else Site
    found = model.model_json_schema()
    parts = {model.__name__: model, **_parts(model)}
    for name, part in [(model.__name__, found), *found.get("$defs", {}).items()]:
        _describe(part, parts[name])
        if name != model.__name__:
            part.pop("required", None)
    if kind == "recipe":
        required = [name for name in found.pop("required") if name != "name"]
        found["properties"]["extends"] = {"type": "string", "description": EXTENDS}
        found["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    return {"$schema": DIALECT, **found}


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    """Give the fields of a section their docstrings; pydantic's titles repeat the names."""
    part.pop("title", None)
    for name, field in part.get("properties", {}).items():
        field.pop("title", None)
        meaning = next((texts[name] for texts in docstrings(model) if texts.get(name)), "")
        if meaning:
            field["description"] = " ".join(meaning.split())


def _parts(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every section below a section, by the name of its type."""
    found: dict[str, type[BaseModel]] = {}
    for info in model.model_fields.values():
        part = part_of(info.annotation)
        if part is not None and part.__name__ not in found:
            found |= {part.__name__: part, **_parts(part)}
    return found
