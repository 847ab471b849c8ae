"""The application: every group of commands, and what becomes of an error."""

import os
import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from densekit import __version__
from densekit.cli import (
    containers,
    evaluate,
    evidence,
    host,
    models,
    parity,
    plan,
    recipes,
    runs,
    train,
)
from densekit.errors import INTERRUPTED_CODE, DataError, DensekitError

BROKEN_PIPE_CODE = 1
"""Exit code when the reader of standard output is gone (`densekit recipes | head -1`)."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: densekit run tiny_stage2",
)
for group in (recipes, models, plan, train, runs, evidence, evaluate, parity, host):
    app.add_typer(group.commands)
app.add_typer(
    containers.commands,
    name="containers",
    no_args_is_help=True,
    help="Lock and build the container images of docker/Dockerfile.",
    rich_help_panel=host.PANEL,
    epilog="Example: densekit containers build cpu",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    """Reproduce "Dense Connector for MLLMs" (arXiv 2405.13800)."""
    if show:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors a user can cause become one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a title in letters that the terminal does not have
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="densekit", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        _fail(_usage(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted by Ctrl-C", INTERRUPTED_CODE)
    except DensekitError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE_CODE) from None
    except OSError as error:  # what the system refuses: a name too long, no permission, a full disk
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", DataError.exit_code)
    raise SystemExit(code or 0)


def _fail(message: str, code: int) -> NoReturn:
    if message:
        print(f"densekit: {message}", file=sys.stderr)
    raise SystemExit(code) from None


def _usage(error: TyperException) -> str:
    """What is wrong with the words of a command, on one line, and where its help is."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    help_of = context.command_path if context else "densekit"
    return f"{message}; see `{help_of} --help`" if message else ""
