"""The verbs about what runs recorded: `diff`, `trajectory`, `verify` and `replay`."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import AsJson, Deterministic, RunName, RunsDir
from densekit.cli.output import print_checks, print_json, print_lines

PANEL = "Evidence"
commands = typer.Typer()


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit diff tiny_stage1 runs/tiny_stage1-0123456789"
)
def diff(
    run_a: RunName,
    run_b: RunName,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", help="Differences of loss and gradient norm up to this pass"),
    ] = 1e-5,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Find the first step where two runs diverge, and the likely cause.

    Exit code 0: equal within the tolerance; 1: they diverge.
    """
    from densekit.audit.diff.compare import compare_runs
    from densekit.cli.site import named_run

    first, second = named_run(run_a, runs_dir), named_run(run_b, runs_dir)
    found = compare_runs(first, second, tolerance=tolerance)
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(found.report())
    raise typer.Exit(0 if found.equal else 1)


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit trajectory vicuna7b_stage2 trainer_state.json"
)
def trajectory(
    run: RunName,
    file: Annotated[
        Path,
        typer.Argument(
            help="trainer_state.json of the published training, or its folder", show_default=False
        ),
    ],
    band: Annotated[
        float, typer.Option("--band", help="Share of the file's loss that an offset may be")
    ] = 0.05,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare a run, also one that still trains, with a published log.

    Exit code 0: nothing speaks against the run, or nothing can be said yet; 1: something does.
    """
    from densekit.audit.trajectory.compare import follow
    from densekit.cli.site import named_run

    found = follow(named_run(run, runs_dir), file, band=band)
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(found.report())
    raise typer.Exit(0 if found.consistent else 1)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit verify tiny_stage2")
def verify(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Recheck every hash of a run, of its data and of its models; or a dossier, by its FILE.zip.

    Exit code 0: no check fails; 1: one does.
    """
    from densekit.audit.verify.verify import verify_run
    from densekit.cli.site import named_run

    if run.lower().endswith(".zip"):
        from densekit.audit.dossier.check import verify_dossier

        print_checks(verify_dossier(Path(run)), as_json=as_json)
    found = named_run(run, runs_dir)
    print_checks(verify_run(found), as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit replay tiny_stage2")
def replay(
    run: RunName,
    runs_dir: Annotated[
        Path | None,
        typer.Option("--runs-dir", help="Where the replay is written (default: beside the run)"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Allowed difference (default: 0 where equal bits can be expected, else 1e-5)",
        ),
    ] = None,
    deterministic: Deterministic = False,
) -> None:
    """Retrain a complete run as it was trained, and compare the two.

    Exit code 0: equal as expected; 1: they diverge.
    """
    from densekit.cli.site import named_run
    from densekit.launch.replay import replay as replay_run

    found = named_run(run, None)
    code = replay_run(found, runs_dir=runs_dir, tolerance=tolerance, deterministic=deterministic)
    raise typer.Exit(code)
