"""The verb that shows runs to others: `report`."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.evidence import PANEL
from densekit.cli.options import RunNames, RunsDir
from densekit.errors import UsageError

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit report tiny_stage2")
def report(
    runs: RunNames = None,
    every: Annotated[
        bool, typer.Option("--all", help="An index of every run in --runs-dir, with their curves")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Where to write the page (default: report.html in the run; comparison.html or "
            "report.html in --runs-dir)",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write a page about a run: what ran, from what, curves, scores, predictions, hashes.

    One self-contained HTML file, which needs no network. Several runs: where they diverge, and
    their curves in common axes. A damaged or unfinished run gives a page that says so.
    """
    from densekit.audit.report.write import (
        COMPARISON_FILE,
        write_comparison,
        write_index,
        write_report,
    )
    from densekit.cli.site import named_run, site_settings

    if every == bool(runs):
        raise UsageError("report: name at least one run, or give --all without a name")
    folder = site_settings(runs_dir=runs_dir).runs_dir
    if to is not None and not to.parent.is_dir():
        raise UsageError(f"--to {to}: {to.parent} is no folder; make it, or name another file")
    if not runs:
        if not folder.is_dir():
            raise UsageError(f"no run in {folder}: give another --runs-dir")
        page = write_index(folder, to)
    else:
        found = [named_run(name, runs_dir) for name in runs]
        if len(found) == 1:
            page = write_report(found[0], to)
        else:
            page = write_comparison(found, to or folder / COMPARISON_FILE)
    print(page)
