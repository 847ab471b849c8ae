"""`densekit publish`: a trained run as a repository of the hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.models import PANEL
from densekit.cli.options import Image, LauncherName, RunName
from densekit.cli.output import print_lines
from densekit.spec.types import Dtype, PublishFormat

commands = typer.Typer()


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: densekit publish tiny_stage2 --to my-lab/tiny-dense-connector --dry-run",
)
def publish(
    run: RunName,
    to: Annotated[str, typer.Option("--to", help="ORG/NAME on the hub", show_default=False)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder and check the card; upload nothing")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where it is put together (default: published/ORG--NAME)"),
    ] = None,
    format_: Annotated[
        PublishFormat | None,
        typer.Option(
            "--format",
            help="llava-hf or densekit (default: llava-hf where it can express the model)",
            show_choices=False,
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype",
            help="fp32, bf16 or fp16 (default: as stored; merged: fp32)",
            show_choices=False,
        ),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="The hub's name of it (default: the language model's)"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one")
    ] = False,
    launcher: LauncherName = None,
    image: Image = None,
) -> None:
    """Publish a complete run on the hub: weights, processor, manifest, and a model card made of
    what the run recorded.

    Nothing is overwritten: a repository with files in it is refused. A dry run needs no token and
    no network; what it leaves may be read, its README.md edited, and is uploaded by the same
    command without --dry-run.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.conversion import converter
    from densekit.launch.launchers.options import LauncherOptions
    from densekit.launch.publishing import PublishRequest
    from densekit.launch.publishing import publish as publish_run
    from densekit.runs.find import find_run

    site = site_settings()
    request = PublishRequest(
        run=find_run(run, site.runs_dir),
        to=to,
        folder=folder,
        format=format_,
        dtype=dtype,
        license=license_,
        private=private,
        dry_run=dry_run,
        roots=site.roots,
    )
    chosen = converter(launcher, LauncherOptions(image=image), site)
    lines = publish_run(request, chosen, say=lambda line: print(line, file=sys.stderr, flush=True))
    print_lines(lines)
