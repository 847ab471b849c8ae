"""The application: every group of commands, and what becomes of an error."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from densekit import __version__
from densekit.cli import containers, evaluate, host, parity, plan, recipes, runs, train
from densekit.errors import DataError, DensekitError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for group in (recipes, plan, train, runs, host, parity, evaluate):
    app.add_typer(group.commands)
app.add_typer(
    containers.commands,
    name="containers",
    no_args_is_help=True,
    help="Lock and build the container images of docker/Dockerfile.",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Reproduce "Dense Connector for MLLMs" (arXiv 2405.13800)."""
    if show:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors a user can cause become one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a title in letters that the terminal does not have
    try:
        app()
    except DensekitError as error:
        print(f"densekit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # what the system refuses: a name too long, no permission, a full disk
        print(f"densekit: {error}", file=sys.stderr)
        raise SystemExit(DataError.exit_code) from None
