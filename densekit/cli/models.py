"""`densekit architectures`: which language models train; `convert`: pickled weights into
safetensors; and `inspect` and `convert-folder`, which launchers start.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import Image, LauncherName
from densekit.cli.output import print_json, print_lines
from densekit.cli.packages import need_training_packages

PANEL = "Data and models"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit architectures")
def architectures() -> None:
    """Try small language models of known architectures and print which train."""
    need_training_packages()
    from densekit.model.architectures import page

    for line in page():
        print(line)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit convert models/vicuna-7b-v1.5")
def convert(
    folder: Annotated[Path, typer.Argument(help="Folder of a model", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="New folder (default: beside the pickles)")
    ] = None,
    launcher: LauncherName = None,
    image: Image = None,
) -> None:
    """Convert pickled weights (pytorch_model*.bin) into safetensors.

    Every tensor is compared with what was read, bit for bit; conversion.json records the hashes of
    both. Nothing that a pickle holds is run.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.conversion import convert as convert_weights
    from densekit.launch.conversion import converter
    from densekit.launch.launchers.options import LauncherOptions

    chosen = converter(launcher, LauncherOptions(image=image), site_settings())
    print_lines(convert_weights(folder, to, chosen))


@commands.command(hidden=True, epilog="Example: densekit convert-folder REQUEST")
def convert_folder(
    request: Annotated[str, typer.Argument(help="The folder, as JSON")],
) -> None:
    """Convert the weights of a folder and print what was made, as JSON (launchers start this)."""
    need_training_packages()
    from densekit.exchange.convert import convert_folder as convert_weights
    from densekit.launch.conversion import read_request

    asked = read_request(request)
    report = convert_weights(
        asked.folder, asked.to, say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    print_json(report.model_dump(mode="json", by_alias=True))


@commands.command(hidden=True, epilog="Example: densekit inspect PARTS")
def inspect(
    parts: Annotated[str, typer.Argument(help="Folders of the models, as JSON")],
) -> None:
    """Print what is wrong with the models of a recipe, as JSON (launchers start this)."""
    need_training_packages()
    from densekit.launch.model_check import read_parts
    from densekit.model.inspection import inspect as problems

    print_json({"schema": 1, "problems": problems(read_parts(parts))})
