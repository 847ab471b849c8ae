"""`densekit evaluate`: refused until the benchmarks are connected."""

from typing import Annotated

import typer

from densekit.errors import UsageError

commands = typer.Typer()


@commands.command(rich_help_panel="Evidence", epilog="Example: densekit evaluate runs/RUN")
def evaluate(
    run: Annotated[str, typer.Argument(help="A complete run directory", show_default=False)],
) -> None:
    """Score a trained run on the paper's benchmarks (not built yet)."""
    raise UsageError(
        f"evaluate {run}: the paper's benchmarks are not connected yet (the lmms-eval adapter is "
        "missing); tiny recipes ask their held-out questions at the end of `densekit run`"
    )
