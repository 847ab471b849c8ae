"""`densekit import` and `export`: official checkpoints in, other formats out; and `exchange`, which
launchers start.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.models import PANEL
from densekit.cli.options import Image, LauncherName
from densekit.cli.output import print_json
from densekit.cli.packages import need_training_packages

commands = typer.Typer()


@commands.command(
    "import",
    rich_help_panel=PANEL,
    epilog="Example: densekit import llava-v1.5-7b --to imported/llava-v1.5-7b",
)
def import_(
    folder: Annotated[
        Path, typer.Argument(help="Folder that the official code left", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="New folder", show_default=False)],
    base: Annotated[
        Path | None,
        typer.Option("--base", help="Language model (default: the one that the folder names)"),
    ] = None,
    tower: Annotated[
        Path | None,
        typer.Option("--tower", help="Vision tower (default: the one that the folder names)"),
    ] = None,
    connector: Annotated[
        Path | None, typer.Option("--connector", help="Connector's file, where it is elsewhere")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Of conversations (default: by the tokenizer)"),
    ] = None,
    launcher: LauncherName = None,
    image: Image = None,
) -> None:
    """Import a checkpoint of the official code, or of LLaVA 1.5.

    Stage 1 (mm_projector.bin), full and LoRA folders are told apart by what is in them. The result
    holds connector.safetensors, which `models.connector` takes, and import.json with the hash of
    every file that was read.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.conversion import converter
    from densekit.launch.exchange import import_checkpoint
    from densekit.launch.launchers.options import LauncherOptions
    from densekit.spec.imported import ImportRequest

    site = site_settings()
    request = ImportRequest(
        folder=folder,
        to=to,
        base=base,
        tower=tower,
        connector=connector,
        template=template,
        search=(site.models_dir,),
    )
    chosen = converter(launcher, LauncherOptions(image=image), site)
    print("\n".join(import_checkpoint(request, chosen)))


@commands.command(hidden=True, epilog="Example: densekit exchange REQUEST")
def exchange(
    request: Annotated[str, typer.Argument(help="What is imported or exported, as JSON")],
) -> None:
    """Import or export a checkpoint and print what was done, as JSON (launchers start this)."""
    need_training_packages()
    from densekit.exchange.carry_out import carry_out
    from densekit.launch.exchange import read_request

    report = carry_out(
        read_request(request), say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    print_json(report.model_dump(mode="json"))
