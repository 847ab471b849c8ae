"""`densekit containers lock` and `build`: the container images of docker/Dockerfile."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

CHECKOUT = Path(__file__).resolve().parents[2]
commands = typer.Typer()


@commands.command("lock", epilog="Example: densekit containers lock")
def lock_images() -> None:
    """Record the digests of the base images, which builds then use.

    Asks the registry of the base images.
    """
    from densekit.containers.base_images import LOCK, lock

    for tag, (before, now) in lock(CHECKOUT).items():
        change = "" if before == now else f"  (before: {before})" if before else "  (new)"
        print(f"{tag}  {now}{change}")
    print(f"written to {LOCK}")


@commands.command(
    "build",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: densekit containers build cpu -- --no-cache",
)
def build_image(
    target: Annotated[
        str, typer.Argument(help="a100, v100, cpu or tensorboard", show_default=False)
    ],
    extra: Annotated[
        list[str] | None,
        typer.Argument(help="More options of `docker build`, after --", show_default=False),
    ] = None,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the command; build nothing")
    ] = False,
) -> None:
    """Build one container image from pinned bases, labelled with its commit."""
    from densekit.containers.build import build, build_command

    command = build_command(CHECKOUT, target, extra or ())
    if show_only:
        print(shlex.join(command))
        return
    raise typer.Exit(build(command))
