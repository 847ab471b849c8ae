"""`densekit evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.errors import UsageError

commands = typer.Typer()


@commands.command()
def evaluate(run_dir: Annotated[Path, typer.Argument(help="A complete run directory.")]) -> None:
    """Score a trained run on the paper's benchmarks (not built yet)."""
    raise UsageError(
        f"evaluate {run_dir}: the paper's benchmarks are not connected yet (the lmms-eval adapter is missing); "
        "tiny recipes ask their held-out questions at the end of `densekit run`"
    )
