"""`densekit fetch`: models and data that recipes read, from the hub and from archives."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import DataDir, ModelsDir, Overrides, RecipeNames

PANEL = "Data and models"
MADE = "densekit makes it, or paths of your own name it"
commands = typer.Typer()


class Only(StrEnum):
    """What `--only` takes."""

    models = "models"
    data = "data"
    benchmarks = "benchmarks"
    trajectories = "trajectories"


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit fetch vicuna7b_clip_stage2 --only models"
)
def fetch(
    recipe: RecipeNames,
    only: Annotated[
        list[Only] | None,
        typer.Option(
            "--only",
            help="models, data, benchmarks or trajectories (repeatable; default: models and data)",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="One part of a data set, e.g. coco, or one model (repeatable)"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Put data/ and models/ into this folder"),
    ] = None,
    brought: Annotated[
        Path | None,
        typer.Option("--from", help="Take archives and models from this folder first"),
    ] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
) -> None:
    """Fetch the models and data that recipes read, and that the stages they need read.

    What is there is not fetched again; after an interruption the same command goes on. Training
    data that came whole are examined as `densekit data verify` does.
    """
    from densekit.cli.site import site_settings
    from densekit.errors import DataError, UsageError
    from densekit.launch.conversion import converter
    from densekit.launch.fetching import DEFAULT, SUBJECTS, chain_of, jobs_of
    from densekit.launch.fetching import fetch as fetch_jobs
    from densekit.launch.launchers.options import LauncherOptions

    if to is not None and (data_dir or models_dir):
        raise UsageError("--to DIR is DIR/data and DIR/models: omit --data-dir and --models-dir")
    if to is not None:
        data_dir, models_dir = to / "data", to / "models"
    site = site_settings(data_dir=data_dir, models_dir=models_dir)
    wanted = tuple(name for name in SUBJECTS if name in only) if only else DEFAULT
    jobs = jobs_of(recipe, overrides or (), site.roots, only=wanted, parts=part or ())
    if not jobs:
        names = ", ".join(recipe)
        unknown = wanted == ("trajectories",)
        why = "no log of their training is known to be published" if unknown else MADE
        print(f"{names}: nothing to fetch: {why}")
        return
    by_hand = fetch_jobs(
        jobs,
        chain_of(recipe, overrides or ()),
        site.roots,
        converter(None, LauncherOptions(), site),
        brought=brought,
    )
    if by_hand:
        raise DataError("\n".join(by_hand))
