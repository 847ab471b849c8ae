"""The verbs for runs that exist: `ls`, `tail`, `stop`, `diff`, `verify` and `replay`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import (
    AsJson,
    Deterministic,
    RunPath,
    RunsDir,
)
from densekit.cli.output import print_checks, print_json

commands = typer.Typer()


@commands.command("ls")
def list_runs(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs: what each is doing, where, and how far it is."""
    from densekit.launch.listing import list_runs as rows_of

    rows = [asdict(row) for row in rows_of(runs_dir)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(f"no run in {runs_dir}")
        return
    names = list(rows[0])
    widths = {name: max(len(str(row[name])) for row in [*rows, {name: name}]) for name in names}
    for row in [{name: name for name in names}, *rows]:
        print("  ".join(f"{row[name]!s:{widths[name]}}" for name in names).rstrip())


@commands.command()
def tail(run_dir: RunPath) -> None:
    """Show the log of a run as it is written, until the run is over. Ctrl-C ends only the showing."""
    from densekit.launch.listing import follow
    from densekit.runs.layout import RunDir

    run = RunDir(run_dir)
    try:
        for text in follow(run):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    status = run.status
    print(
        f"{run_dir} is {status.state}" + (f": {status.message}" if status.message else ""),
        file=sys.stderr,
    )


@commands.command()
def stop(
    run_dir: RunPath,
    now: Annotated[
        bool, typer.Option("--now", help="End it at once; steps since its checkpoint are lost.")
    ] = False,
) -> None:
    """Stop a run at a checkpoint, whichever launcher started it; `densekit run` goes on with it."""
    from densekit.launch.launchers.in_flight import stop as stop_run
    from densekit.runs.layout import RunDir

    print(stop_run(RunDir(run_dir), now=now))


@commands.command()
def diff(
    run_a: Annotated[Path, typer.Argument(help="A run directory.")],
    run_b: Annotated[Path, typer.Argument(help="The run directory to compare it with.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Difference of losses that is no parting.")
    ] = 1e-5,
    as_json: AsJson = False,
) -> None:
    """Say where two runs part, and what can be the cause. Exit code 0: equal within the tolerance;
    1: they part.
    """
    from densekit.audit.diff.compare import compare_runs

    found = compare_runs(run_a, run_b, tolerance=tolerance)
    if as_json:
        print_json(found.as_json())
    else:
        print("\n".join(found.report()))
    raise typer.Exit(0 if found.equal else 1)


@commands.command()
def verify(run_dir: RunPath, as_json: AsJson = False) -> None:
    """Recheck every hash of a run and of what it was trained from. Exit code 0: nothing fails; 1:
    something does.
    """
    from densekit.audit.verify.verify import verify_run

    print_checks(verify_run(run_dir), as_json)


@commands.command()
def replay(
    run_dir: RunPath,
    runs_dir: Annotated[
        Path | None,
        typer.Option("--runs-dir", help="Where the replay is made; by default beside the run."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="By default bits have to be equal where they can be, else within 1e-5.",
        ),
    ] = None,
    deterministic: Deterministic = False,
) -> None:
    """Train a complete run again as it was trained, and compare. Exit code 0: equal as expected; 1:
    the two part.
    """
    from densekit.launch.replay import replay as replay_run

    code = replay_run(run_dir, runs_dir=runs_dir, tolerance=tolerance, deterministic=deterministic)
    raise typer.Exit(code)
