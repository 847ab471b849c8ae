"""`densekit cross-check`: a second opinion by lmms-eval."""

from typing import Annotated

import typer

from densekit.cli.options import AsJson, RunName, RunsDir
from densekit.cli.output import print_json, print_lines

commands = typer.Typer()


@commands.command(
    name="cross-check",
    rich_help_panel="Evidence",
    epilog="Example: densekit cross-check tiny_stage2 --benchmarks held_out",
)
def cross_check(
    run: RunName,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            "--benchmarks",
            help="Names, separated by commas (default: all that were evaluated and are greedy)",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Let lmms-eval ask an evaluated model the same questions, and compare.

    Exit code 0: the same answers, and the same scores where both score alike; 1: not.
    """
    from densekit.cli.site import named_run
    from densekit.evaluate.cross_check.compare import SCHEMA
    from densekit.launch.cross_check import cross_check as check

    names = [name.strip() for name in (benchmarks or "").split(",") if name.strip()]
    found = check(named_run(run, runs_dir), names)
    if as_json:
        print_json({"schema": SCHEMA, "benchmarks": [each.as_json() for each in found]})
    else:
        print_lines(line for each in found for line in each.report())
    raise typer.Exit(0 if all(each.agrees for each in found) else 1)
