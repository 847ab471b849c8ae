"""The application: every group of commands, and what becomes of an error."""

import inspect
import os
import shutil
import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

import densekit
from densekit.cli import (
    containers,
    cross_check,
    data,
    evaluate,
    evidence,
    exchange,
    fetch,
    host,
    models,
    parity,
    plan,
    publish,
    recipes,
    report,
    runs,
    talk,
    train,
    verdicts,
)
from densekit.cli.output import wrapped
from densekit.errors import INTERRUPTED_CODE, DataError, DensekitError

BROKEN_PIPE_CODE = 1
"""Exit code when the reader of standard output is gone (`densekit recipes | head -1`)."""

OTHER_WORDS = {"list": "`recipes` lists the recipes, `ls` the runs"}
"""What a word of other programs is called here, where the nearest command is not meant."""


def _join_lines(group: typer.Typer) -> None:
    """Let a paragraph of a docstring flow in `--help`: typer would keep its line breaks."""
    for command in group.registered_commands:
        paragraphs = inspect.cleandoc(getattr(command.callback, "__doc__", None) or "")
        command.help = "\n\n".join(
            " ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n")
        )


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: densekit run tiny_stage2",
)


def _add_group(name: str, commands: typer.Typer, *, panel: str, text: str, example: str) -> None:
    """Add commands below a word of their own."""
    _join_lines(commands)
    app.add_typer(
        commands,
        name=name,
        no_args_is_help=True,
        help=text,
        rich_help_panel=panel,
        epilog=f"Example: densekit {example}",
    )


for group in (recipes, models, exchange, publish, talk, fetch):
    _join_lines(group.commands)
    app.add_typer(group.commands)
_add_group(
    "data",
    data.commands,
    panel=data.PANEL,
    text="Verify, pin and describe data sets.",
    example="data verify vicuna7b_clip_stage2",
)
for group in (plan, train, runs, evidence, report, evaluate, cross_check, verdicts, parity, host):
    _join_lines(group.commands)
    app.add_typer(group.commands)
_add_group(
    "containers",
    containers.commands,
    panel=host.PANEL,
    text="Lock and build the container images of docker/Dockerfile.",
    example="containers build cpu",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    """Reproduce "Dense Connector for MLLMs" (arXiv 2405.13800)."""
    if show:
        print(densekit.__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors a user can cause become one message and an exit code."""
    _open_closed_streams()
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


def _open_closed_streams() -> None:
    """Give standard streams that the caller closed (`densekit ls >&-`) an end: else a file that is
    opened later takes their number, and gets what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            lowest = os.open(os.devnull, os.O_RDWR)  # the number that the stream had
            setattr(sys, name, os.fdopen(lowest, mode, encoding="utf-8"))


def _fail(message: str, code: int) -> NoReturn:
    if message:
        lines = f"densekit: {message}".split("\n")
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns
            lines = [part for line in lines for part in wrapped(line, width)]
        print("\n".join(lines), file=sys.stderr)
    raise SystemExit(code) from None


def _usage(error: TyperException) -> str:
    """What is wrong with the words of a command, on one line, and where its help is."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    for words, instead in OTHER_WORDS.items():
        if message.startswith(f"No such command '{words}'"):
            message = f"No such command '{words}': {instead}"
    see = f"`{context.command_path if context else 'densekit'} --help`"
    if message.endswith("?"):
        return f"{message} See {see}"
    return f"{message}; see {see}" if message else ""
