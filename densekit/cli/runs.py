"""The verbs for runs in flight: `ls`, `tail` and `stop`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from densekit.cli.options import AsJson, RunName, RunsDir
from densekit.cli.output import fitted, print_json, print_table

if TYPE_CHECKING:
    from densekit.launch.listing import ListedRun

PANEL = "Runs"
DROPPED = ("attempt", "started", "place", "duration", "loss")
"""Columns that `ls` leaves out on a narrow terminal, in this order."""
MESSAGE = 16
"""Of its last column that is to be seen at least."""
commands = typer.Typer()


@commands.command("ls", rich_help_panel=PANEL, epilog="Example: densekit ls tiny --sort loss")
def list_runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Beginnings of names, or patterns with *", show_default=False
        ),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only runs in this state (repeatable)", show_default=False),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="By name, state, loss, started, duration or verdict")
    ] = "name",
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List the runs: state, steps, loss, time left and taken, verdict, and where each trains."""
    from densekit.cli.site import site_settings
    from densekit.launch.listing import list_runs as rows_of

    folder = site_settings(runs_dir=runs_dir).runs_dir
    found = rows_of(folder, names=names or (), states=states or (), sort=sort)
    found = found[::-1] if reverse else found
    if as_json:
        print_json([asdict(row) for row in found])
    elif found:
        header, rows = _columns(found)
        print_table(rows, header=header)
    else:
        asked = " that was asked for" if names or states else ""
        print(f"no run{asked} in {folder}")


def _columns(found: "Sequence[ListedRun]") -> tuple[list[str], list[list[str]]]:
    """The columns for people; one that would be empty is left out."""
    columns = {
        "run": [row.run for row in found],
        "state": [row.state for row in found],
        "steps": [row.steps for row in found],
        "attempt": [str(row.attempt) for row in found],
        "loss": ["" if row.loss is None else f"{row.loss:.4f}" for row in found],
        "eta": [_clock(row.eta_seconds) for row in found],
        "started": [_when(row.started) for row in found],
        "duration": [_clock(row.duration_seconds) for row in found],
        "verdict": [row.verdict for row in found],
        "place": [row.place for row in found],
        "message": [" ".join(row.message.split()) for row in found],
    }
    known = {name: cells for name, cells in columns.items() if any(cells)}
    kept = fitted(known, drop=DROPPED, last=MESSAGE)
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def _clock(seconds: float | None) -> str:
    from densekit.runs.progress import clock

    return "" if seconds is None else clock(seconds)


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%m-%d %H:%M}"


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit tail tiny_stage2")
def tail(run: RunName, runs_dir: RunsDir = None) -> None:
    """Follow the log of a run until the run ends. Ctrl-C ends only the display."""
    from densekit.cli.site import named_run
    from densekit.launch.listing import follow
    from densekit.launch.screen import screen, shown
    from densekit.runs.layout import RunDir

    found = RunDir(named_run(run, runs_dir))
    try:
        with screen(), shown(found):
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
