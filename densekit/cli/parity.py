"""`densekit parity`: densekit's numbers against those recorded from the official code."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import AsJson
from densekit.cli.output import print_json
from densekit.cli.packages import need_training_packages

commands = typer.Typer()


@commands.command(rich_help_panel="Evidence", epilog="Example: densekit parity tests/golden")
def parity(
    directory: Annotated[
        Path,
        typer.Argument(
            help="Folder of numbers recorded from the official code", show_default=False
        ),
    ],
    as_json: AsJson = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every quantity of every case")
    ] = False,
) -> None:
    """Compare densekit with numbers recorded from the official code.

    Exit code 0: all are equal within their tolerances; 1: some are not.
    """
    need_training_packages()
    from densekit.runs.launch_variables import clear_inherited

    clear_inherited(keep_ranks=False)
    from densekit.parity.report import print_report, run_parity

    report = run_parity(directory, progress=not as_json)
    if as_json:
        print_json(report.as_json())
    else:
        print_report(report, verbose=verbose)
    raise typer.Exit(0 if report.ok else 1)
