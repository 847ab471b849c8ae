"""`densekit import` and `export`: official checkpoints in, other formats out; and `exchange`, which
launchers start.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.models import PANEL
from densekit.cli.options import Image, LauncherName, complete_runs
from densekit.cli.output import print_json, print_lines
from densekit.cli.packages import need_training_packages
from densekit.spec.types import Dtype, ExportFormat

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
    print_lines(import_checkpoint(request, chosen))


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: densekit export tiny_stage2 --format llava-hf --to exported/tiny",
)
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Complete run, or folder that `densekit import` made",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="New folder", show_default=False)],
    format_: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="llava-hf, official or densekit",
            show_default=False,
            show_choices=False,
        ),
    ],
    merge_lora: Annotated[
        bool, typer.Option("--merge-lora", help="Add LoRA adapters to the weights, in fp32")
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype",
            help="fp32, bf16 or fp16 (default: as stored; merged: fp32)",
            show_choices=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and the host RAM it takes")
    ] = False,
    launcher: LauncherName = None,
    image: Image = None,
) -> None:
    """Write a trained model for stock transformers, the official code, or densekit's own class.

    The export is read again in a fresh process and must answer stored prompts as the model does.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.conversion import converter
    from densekit.launch.exchange import export_model
    from densekit.launch.launchers.options import LauncherOptions
    from densekit.runs.find import find_run
    from densekit.spec.exchange import ExportRequest

    site = site_settings()
    request = ExportRequest(
        source=find_run(run, site.runs_dir),
        to=to,
        format=format_,
        merge_lora=merge_lora,
        dtype=dtype,
        dry_run=dry_run,
        roots=site.roots,
    )
    chosen = converter(launcher, LauncherOptions(image=image), site)
    print_lines(export_model(request, chosen))


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
