"""`densekit doctor`, `selftest` and `site`: what this host, or this container, can train, and how
it is set up.
"""

from typing import Annotated

import typer

from densekit.cli.options import (
    AsJson,
    CacheDir,
    DataDir,
    ModelsDir,
    PlannedGpus,
    RunsDir,
    complete_gpus,
    complete_recipes,
)
from densekit.cli.output import print_checks, print_json, print_table
from densekit.cli.packages import need_training_packages

PANEL = "This machine"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit doctor vicuna7b_clip_stage2")
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe whose data and models are checked too",
            autocompletion=complete_recipes,
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            help="Ask about GPUs that are elsewhere: their type, e.g. a100-80g",
            autocompletion=complete_gpus,
        ),
    ] = None,
    gpus: PlannedGpus = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Check whether this host, or GPUs elsewhere, can train, and name what is missing.

    Exit code 0: no check fails; 1: one does.
    """
    from densekit.cli.site import site_settings
    from densekit.errors import UsageError
    from densekit.launch.doctor import Elsewhere
    from densekit.launch.doctor import doctor as examine
    from densekit.spec.hardware import hardware

    if gpu is None and gpus is not None:
        raise UsageError(f"--gpus {gpus}: name their type with --gpu")
    if gpus is not None and gpus < 1:
        raise UsageError(f"--gpus {gpus}: give a number of at least 1")
    elsewhere = Elsewhere(kind=hardware(gpu), world_size=gpus) if gpu else None
    site = site_settings(
        runs_dir=runs_dir, data_dir=data_dir, models_dir=models_dir, cache_dir=cache_dir
    )
    checks = examine(recipe, site.roots, site.runs_dir, elsewhere=elsewhere)
    print_checks(checks, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit selftest")
def selftest(as_json: AsJson = False) -> None:
    """Check what this Python, or this container, can train.

    Exit code 0: no check fails; 1: one does.
    """
    need_training_packages()
    from densekit.train.selftest import selftest as checks

    print_checks(checks(), as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit site")
def site(as_json: AsJson = False) -> None:
    """Print the site settings in effect, and where each was set.

    They come from the command line, else from DENSEKIT_* variables, else from densekit.yaml of the
    working directory (or the file that DENSEKIT_SITE names), else from densekit.
    """
    from densekit.cli.site import defaults_of, effective_settings

    found = effective_settings()
    values = found.site.model_dump(mode="json")
    if as_json:
        print_json(
            {
                "schema": 1,
                "file": str(found.file) if found.file else None,
                "settings": {
                    key: {"value": value, "origin": found.origins[key]}
                    for key, value in values.items()
                },
            }
        )
        return
    defaults = defaults_of(found.site)
    rows = [
        (key, defaults.get(key) or _shown(value), found.origins[key])
        for key, value in values.items()
    ]
    print_table(rows, header=("setting", "value", "from"))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
