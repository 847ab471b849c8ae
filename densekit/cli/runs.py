"""The verbs for runs in flight: `ls`, `tail` and `stop`."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from densekit.cli.options import AsJson, RunName, RunsDir
from densekit.cli.output import print_json, print_table

PANEL = "Runs"
commands = typer.Typer()


@commands.command("ls", rich_help_panel=PANEL, epilog="Example: densekit ls --runs-dir runs")
def list_runs(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """List the runs: state, steps, and where each trains."""
    from densekit.cli.site import site_settings
    from densekit.launch.listing import list_runs as rows_of

    folder = site_settings(runs_dir=runs_dir).runs_dir
    rows = [asdict(row) for row in rows_of(folder)]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([list(row.values()) for row in rows], header=list(rows[0]))
    else:
        print(f"no run in {folder}")


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit tail tiny_stage2")
def tail(run: RunName, runs_dir: RunsDir = None) -> None:
    """Follow the log of a run until the run ends. Ctrl-C ends only the display."""
    from densekit.cli.site import named_run
    from densekit.launch.listing import follow
    from densekit.runs.layout import RunDir

    found = RunDir(named_run(run, runs_dir))
    try:
        for text in follow(found):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    status = found.status
    reason = f": {status.message}" if status.message else ""
    print(f"{found.path} is {status.state}{reason}", file=sys.stderr)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit stop tiny_stage2")
def stop(
    run: RunName,
    now: Annotated[
        bool,
        typer.Option("--now", help="Kill it: steps since its newest checkpoint are lost"),
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Stop a run at a checkpoint; `densekit run` resumes it."""
    from densekit.cli.site import named_run
    from densekit.launch.running import stop as stop_run
    from densekit.runs.layout import RunDir

    found = named_run(run, runs_dir)
    print(stop_run(RunDir(found), now=now))
