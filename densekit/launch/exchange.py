"""`densekit import` and `densekit export`: the request that a launcher carries out."""

from pydantic import ValidationError

from densekit.errors import UsageError
from densekit.launch.launchers.base import Launcher
from densekit.spec.exchange import ExchangeRequest, ExportRequest
from densekit.spec.execution import Execution
from densekit.spec.imported import ImportRequest


def import_checkpoint(request: ImportRequest, launcher: Launcher) -> tuple[str, ...]:
    """Import a checkpoint; returns what was done, in lines. Raises UsageError or DataError as
    `exchange/official/importing.py` does.
    """
    if not request.folder.is_dir():
        raise UsageError(f"{request.folder} is not a folder: give one that the official code wrote")
    # A container sees what is mounted, and no symbolic link on the way there.
    found = {
        name: path.resolve()
        for name in ("folder", "to", "base", "tower", "connector")
        if (path := getattr(request, name)) is not None
    }
    found["search"] = tuple(path.resolve() for path in request.search)  # type: ignore[assignment]
    asked = request.model_copy(update=found)
    return launcher.exchange(ExchangeRequest(import_=asked), Execution()).lines


def export_model(request: ExportRequest, launcher: Launcher) -> tuple[str, ...]:
    """Export a model; returns what was done, in lines. Raises UsageError or DataError as
    `exchange/export/exporting.py` does.
    """
    if not request.source.is_dir():
        raise UsageError(f"{request.source} is not a folder: give a run or an imported checkpoint")
    found = {
        "source": request.source.resolve(),
        "to": request.to.resolve(),
        "roots": request.roots.absolute(),
    }
    asked = request.model_copy(update=found)
    return launcher.exchange(ExchangeRequest(export=asked), Execution()).lines


def read_request(text: str) -> ExchangeRequest:
    """The argument of `densekit exchange`. Raises UsageError for anything else."""
    try:
        return ExchangeRequest.model_validate_json(text)
    except ValidationError:
        raise UsageError("`densekit exchange` takes a request as JSON") from None
