"""`densekit parity`: against numbers recorded from the official code."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import AsJson
from densekit.cli.output import print_json
from densekit.cli.packages import need_training_packages

commands = typer.Typer()


@commands.command()
def parity(
    directory: Annotated[
        Path, typer.Argument(help="A folder of numbers recorded from the official code.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare densekit with numbers recorded from the official code."""
    need_training_packages()
    from densekit.parity.report import print_report, run_parity

    result = run_parity(directory, progress=not as_json)
    if as_json:
        print_json(result)
    else:
        print_report(result)
    raise typer.Exit(0 if result["ok"] else 1)
