"""`densekit architectures`: which language models train; and `inspect`, which launchers start."""

from typing import Annotated

import typer

from densekit.cli.output import print_json
from densekit.cli.packages import need_training_packages

PANEL = "Recipes"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit architectures")
def architectures() -> None:
    """Try small language models of known architectures and print which train."""
    need_training_packages()
    from densekit.model.architectures import page

    for line in page():
        print(line)


@commands.command(hidden=True, epilog="Example: densekit inspect PARTS")
def inspect(
    parts: Annotated[str, typer.Argument(help="Folders of the models, as JSON")],
) -> None:
    """Print what is wrong with the models of a recipe, as JSON (launchers start this)."""
    need_training_packages()
    from densekit.launch.model_check import read_parts
    from densekit.model.inspection import inspect as problems

    print_json({"schema": 1, "problems": problems(read_parts(parts))})
