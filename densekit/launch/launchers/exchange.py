"""The process that imports or exports a checkpoint."""

from pathlib import Path

from densekit.launch.launchers.conversion import answer, run_here
from densekit.spec.exchange import ExchangeReport, ExchangeRequest


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
    """The folders that it reads (True) or writes (False)."""
    read = {path.resolve() for path in request.reads() if path.exists()}
    linked = {
        inside.resolve().parent
        for path in read
        if path.is_dir()
        for inside in path.iterdir()
        if inside.is_symlink()
    }
    return {**dict.fromkeys(sorted(read | linked), True), request.to.resolve(): False}
