"""The verbs that show runs to others: `report` and `dossier`."""

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


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit curves tiny_stage2 my_run")
def curves(
    runs: RunNames = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Where to write the page (default: curves.html in --runs-dir)",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Show runs side by side: loss, learning rate, gradient norm and speed in common axes.

    One self-contained HTML file, which needs no network, and a line for each run here. Runs that
    are under way are shown as far as they are; without a name, those that trained last.
    """
    from densekit.audit.report.side_by_side import CURVES_FILE, newest_runs, write_curves
    from densekit.cli.output import print_table
    from densekit.cli.site import named_run, site_settings

    folder = site_settings(runs_dir=runs_dir).runs_dir
    if to is not None and not to.parent.is_dir():
        raise UsageError(f"--to {to}: {to.parent} is no folder; make it, or name another file")
    found = [named_run(name, runs_dir) for name in runs or ()] or newest_runs(folder)
    page = to or folder / CURVES_FILE
    rows = write_curves(found, page)
    print_table(
        [
            [row.name, row.steps, row.curve, *(_loss(row.first_loss), _loss(row.last_loss)), speed]
            for row in rows
            for speed in ["  ".join(row.recent.words()[3:])]
        ],
        header=["run", "steps", "loss", "first", "last", "latest steps"],
    )
    print(page)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit dossier tiny_stage2 --to tiny_stage2.zip"
)
def dossier(
    runs: RunNames,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", help="The archive to write", show_default=False),
    ],
    with_paths: Annotated[
        bool,
        typer.Option(
            "--with-paths", help="Leave paths and host names of this machine in the records"
        ),
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Pack the records of runs into one archive for a reviewer: an RO-Crate.

    With the stage-1 run that each starts from, answers, scores, page, packages and hashes; without
    weights. `densekit verify FILE.zip` rechecks it on a laptop.
    """
    from densekit.audit.dossier.pack import pack
    from densekit.cli.site import named_run

    if not runs:
        raise UsageError("dossier: name at least one run")
    if to.suffix != ".zip" or not to.parent.is_dir():
        raise UsageError(f"--to {to}: name a file that ends in .zip, in a folder that exists")
    found = [named_run(name, runs_dir) for name in runs]
    digest, listing = pack(found, to, with_paths=with_paths)
    for run in listing.runs:
        print(f"{run.recipe}: {run.folder} ({run.state})")
    print(f"{to}: {len(listing.files)} files, SHA-256 {digest}")
