"""The process that imports or exports a checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from densekit.launch.launchers.conversion import answer, run_here
from densekit.launch.launchers.paths import recipe_paths
from densekit.runs.layout import MATH_FILE, RunDir
from densekit.spec.exchange import ExchangeReport, ExchangeRequest
from densekit.spec.imported import is_imported, read_imported


def exchange_arguments(request: ExchangeRequest) -> list[str]:
    """What follows the interpreter."""
    return ["-m", "densekit", "exchange", request.model_dump_json()]


def exchange_here(request: ExchangeRequest) -> ExchangeReport:
    """What a process of this interpreter did. Raises UsageError or DataError as it did."""
    return exchanged(*run_here(exchange_arguments(request), request.what))


def exchanged(code: int, out: bytes, errors: bytes) -> ExchangeReport:
    """The report that the process printed. Raises the error that it ended with."""
    return answer(ExchangeReport, "the checkpoint could not be read or written", code, out, errors)


def folders_of(request: ExchangeRequest) -> dict[Path, bool]:
    """The folders that it reads (True) or writes (False). Raises DataError for a record that is
    damaged.
    """
    named = folders_behind(request.export.source) if request.export is not None else ()
    read = with_linked((*request.reads(), *named))
    return {**dict.fromkeys(sorted(read), True), request.to.resolve(): False}


def with_linked(paths: Iterable[Path]) -> set[Path]:
    """Those that exist, and the folders that symbolic links in them lead to (a hub cache)."""
    read = {path.resolve() for path in paths if path.exists()}
    linked = {
        inside.resolve().parent
        for path in read
        if path.is_dir()
        for inside in path.iterdir()
        if inside.is_symlink()
    }
    return read | linked


def folders_behind(source: Path) -> Iterator[Path]:
    """The folder of a run, an import or an export, and those outside of it that its record names.
    Raises DataError for a record that is damaged.
    """
    yield source
    yield from _named_by(source)


def _named_by(source: Path) -> Iterator[Path]:
    """The folders outside of a run or an import that its record names."""
    if is_imported(source):
        record = read_imported(source)
        yield source / record.language_model
        yield source / record.vision_tower
    elif (source / MATH_FILE).is_file():
        run = RunDir(source)
        yield run.execution.roots.models
        yield run.execution.roots.cache
        yield from (path for _, path in recipe_paths(run.math.recipe))
