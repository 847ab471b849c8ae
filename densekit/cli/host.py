"""`densekit doctor` and `selftest`: what this host, or this container, can train."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import (
    DEFAULT_ROOTS,
    AsJson,
    CacheDir,
    DataDir,
    ModelsDir,
    RunsDir,
)
from densekit.cli.output import print_checks, print_json
from densekit.cli.packages import need_training_packages
from densekit.spec.roots import Roots

commands = typer.Typer()


@commands.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose data and models are checked too.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = DEFAULT_ROOTS.data,
    models_dir: ModelsDir = DEFAULT_ROOTS.models,
    cache_dir: CacheDir = DEFAULT_ROOTS.cache,
    as_json: AsJson = False,
) -> None:
    """Say what this host can train, and what is missing. Exit code 0: nothing fails; 1: something
    does.
    """
    from densekit.launch.doctor import doctor as examine

    checks = examine(recipe, Roots(data=data_dir, models=models_dir, cache=cache_dir), runs_dir)
    print_checks(checks, as_json)


@commands.command()
def selftest(as_json: AsJson = False) -> None:
    """Say what this machine or container can train; exit 1 if something in it is wrong."""
    need_training_packages()
    from densekit.train.selftest import selftest as findings

    lines = findings()
    if as_json:
        print_json([asdict(line) for line in lines])
    else:
        for line in lines:
            print(f"{line.mark:4} {line.name:9} {line.text}")
    raise typer.Exit(1 if any(line.mark == "FAIL" for line in lines) else 0)
