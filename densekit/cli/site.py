"""Site settings in effect: command line, then DENSEKIT_* variables, then densekit.yaml, then the
default.
"""

import difflib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from densekit.errors import UsageError
from densekit.launch.launchers.registry import DEFAULT_ON_GPU_HOST, launcher_names
from densekit.recipes.yaml_lines import Document, error_lines, part_of, read_document
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import hardware
from densekit.spec.site import Site

FILE = "densekit.yaml"
FILE_VARIABLE = "DENSEKIT_SITE"
"""Names the file where it is not densekit.yaml of the working directory."""
PATHS = tuple(name for name, field in Site.model_fields.items() if field.annotation is Path)


@dataclass(frozen=True, kw_only=True)
class Effective:
    """The settings in effect, and where each was set."""

    site: Site
    origins: dict[str, str]
    """Key -> `densekit.yaml:3`, `DENSEKIT_DATA_DIR` or `default`."""
    file: Path | None
    """The file that was read; None where there is none."""


def variable(key: str) -> str:
    """The environment variable of a key: `data_dir` -> `DENSEKIT_DATA_DIR`."""
    return f"DENSEKIT_{key.upper()}"


def site_settings(**options: object) -> Site:
    """The settings in effect; `options` are those of the command line, None where it has none."""
    given = {key: value for key, value in options.items() if value is not None}
    return effective_settings().site.model_copy(update=given)


def defaults_of(site: Site) -> dict[str, str]:
    """What holds for each key that nobody set and that has no value of its own, for people."""
    saves = ExecutionRequest().save_policy()
    words = {
        "launcher": f"{DEFAULT_ON_GPU_HOST} on a GPU host, else local",
        "image": "the one for the GPUs found",
        "gpu": "the paper's",
        "sbatch": "none",
        "queue_minutes": "no limit",
        "save_steps": "by minutes alone",
        "save_minutes": f"{saves.every_minutes:g}",
        "keep": str(saves.keep),
        "keep_hours": f"{saves.keep_hours:g}",
        "price": "no costs",
    }
    return {key: text for key, text in words.items() if getattr(site, key) in (None, ())}


def named_run(name: str, runs_dir: Path | None) -> Path:
    """The run directory that `name` means, in --runs-dir or the site's folder of runs."""
    from densekit.runs.find import find_run

    return find_run(name, site_settings(runs_dir=runs_dir).runs_dir)


def effective_settings() -> Effective:
    """The settings in effect where the command line says nothing.

    Raises UsageError that names file and line, or the variable, and the key.
    """
    document = _read_file()
    file = document.files[0] if document.files else None
    for key in Site.model_fields:
        if text := os.environ.get(variable(key)):
            document.values[key] = _words(key, text) if key == "sbatch" else text
            document.lines[(key,)] = variable(key)
    try:
        site = Site.model_validate(document.values)
    except ValidationError as error:
        raise UsageError(error_lines(error, document, Site)) from None
    origins = {key: document.line((key,)) or "default" for key in Site.model_fields}
    _check_words(site, origins)
    return Effective(site=site, origins=origins, file=file)


def _check_words(site: Site, origins: dict[str, str]) -> None:
    """Raises UsageError for a launcher, a GPU or an option of sbatch that does not exist."""
    known = launcher_names()
    if site.launcher not in (None, *known):
        close = difflib.get_close_matches(str(site.launcher), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UsageError(
            f"{origins['launcher']}: `launcher`: no launcher is named '{site.launcher}'; {hint}"
        )
    if site.gpu:
        hardware(site.gpu, f"{origins['gpu']}: `gpu`")
    if site.sbatch:
        from densekit.launch.launchers.slurm.script import parse_options

        parse_options(site.sbatch, f"{origins['sbatch']}: `sbatch`")


def _read_file() -> Document:
    named = os.environ.get(FILE_VARIABLE)
    path = _expanded(named, FILE_VARIABLE) if named else Path(FILE)
    if path == Path(os.devnull) or (not named and not os.path.lexists(path)):
        return Document({}, {})
    if not path.is_file():
        where = f"{FILE_VARIABLE}={named}" if named else FILE
        raise UsageError(f"{where}: there is no such file; write one, or remove the name")
    document = read_document(path)
    for key in document.values:
        if key not in Site.model_fields:
            _refuse_math(str(key), document)
    for key in PATHS:
        if isinstance(document.values.get(key), str):
            folder = path.parent if named else Path()
            where = f"{document.line((key,))}: `{key}`"
            document.values[key] = folder / _expanded(document.values[key], where)
    return document


def _expanded(text: str, where: str) -> Path:
    """A path with ~ as a shell reads it. Raises UsageError where that is nobody's folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{where}: {text}: ~ is no home folder here; write the path out") from None


def _words(key: str, text: str) -> list[str]:
    """A variable's words, as a shell splits them. Raises UsageError for a quote without its end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{variable(key)}={text}: {str(error).lower()}") from None


def _refuse_math(key: str, document: Document) -> None:
    """Say of a key that belongs to a recipe why it is not read here."""
    from densekit.spec.recipe import Recipe

    field = next((field for field in _fields(Recipe) if key in (field, field.split(".")[-1])), None)
    if field is not None:
        close = difflib.get_close_matches(key, Site.model_fields, n=1)
        hint = f"give --set {field}=... to `densekit run`"
        hint = f"did you mean `{close[0]}`?" if close else hint
        raise UsageError(
            f"{document.line((key,))}: `{key}` belongs to recipes: site settings change where and "
            f"how a run trains, never what it computes; {hint}"
        )


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """Dotted names of all fields of a model, the outer ones first."""
    inner: list[str] = []
    for name, info in model.model_fields.items():
        yield name
        if part := part_of(info.annotation):
            inner += [f"{name}.{field}" for field in _fields(part)]
    yield from inner
