"""`densekit compare`, `verdict`, `power` and `calibrate`: what scores say, and what they could."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import AsJson, RunsDir, complete_runs
from densekit.cli.output import print_json, print_lines, print_table
from densekit.spec.types import Semantics

PANEL = "Evidence"
commands = typer.Typer()

ARM = "Runs that differ only in their seed, separated by commas; a recipe's name means all its runs"
SemanticsOption = Annotated[
    Semantics, typer.Option(help="Of the scores: faithful (the official scripts') or fixed")
]


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: densekit compare vicuna7b_clip_stage2 vicuna7b_clip_none_stage2",
)
def compare(
    a: Annotated[str, typer.Argument(help=ARM, autocompletion=complete_runs, show_default=False)],
    b: Annotated[
        str,
        typer.Argument(
            help="What A is held against, likewise",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ],
    semantics: SemanticsOption = "faithful",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Test whether A scores better than B, with the noise of questions and of seeds in it.

    Exit code 0 whatever the answer.
    """
    from densekit.cli.verdict_tables import gain_lines
    from densekit.evaluate.arms import read_arm
    from densekit.evaluate.compare import compare as compare_arms
    from densekit.recipes.paper import load_paper

    better, worse = (read_arm(_runs(names, runs_dir), semantics) for names in (a, b))
    found = compare_arms(better, worse, load_paper())
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_lines(gain_lines(found, why=True))


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit verdict vicuna7b_clip_stage2")
def verdict(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs of one recipe that differ only in their seed; its name means all its runs",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Runs that these should be better than, separated by commas", show_default=False
        ),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Print what each verdict rests on")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Judge runs by the numbers that the paper reports, and write verdict.json into each.

    Exit code 0; 1 where a number diverged or a claim is contradicted.
    """
    from densekit.cli.site import site_settings
    from densekit.cli.verdict_tables import verdict_lines
    from densekit.errors import DataError
    from densekit.evaluate.arms import read_arm
    from densekit.evaluate.verdict import judge
    from densekit.recipes.paper import load_paper
    from densekit.runs.calibrations import read_calibrations
    from densekit.runs.verdicts import VERDICT_FILE, write_verdict

    paper = load_paper()
    arm = read_arm(_runs(",".join(runs), runs_dir))
    other = None if baseline is None else read_arm(_runs(baseline, runs_dir))
    known = read_calibrations(site_settings(runs_dir=runs_dir).runs_dir)
    found = judge(arm, other, paper, known)
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        print_lines(verdict_lines(found, paper.baseline(found.recipe), why=why))
    for member in arm.members:
        try:
            write_verdict(member.path, found)
        except OSError as error:
            raise DataError(
                f"{member.path / VERDICT_FILE} cannot be written ({error.strerror}): this verdict "
                "is not stored"
            ) from None
    raise typer.Exit(1 if found.failed else 0)


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit power vicuna7b_clip_stage2 gqa --effect 1.8"
)
def power(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|BENCHMARK...",
            help="Recipes with a reported gain, or benchmarks by their names in recipes/paper.yaml",
            show_default=False,
        ),
    ],
    effect: Annotated[
        float | None,
        typer.Option(help="The difference to be shown (default: the reported gain)"),
    ] = None,
    seed_sd: Annotated[
        float | None,
        typer.Option(help="Standard deviation over seeds (default: recipes/paper.yaml's)"),
    ] = None,
    question_sd: Annotated[
        float | None,
        typer.Option(help="That of a difference over questions (default: likewise)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many runs an arm a difference needs, before any is paid for."""
    from densekit.cli.verdict_tables import power_lines
    from densekit.evaluate.power import plan_power
    from densekit.recipes.paper import load_paper

    rows = plan_power(what, load_paper(), effect=effect, seed_sd=seed_sd, question_sd=question_sd)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
    else:
        print_lines(power_lines(rows))


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: densekit calibrate imported/llava-v1.5-7b --model llava-v1.5-7b",
)
def calibrate(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="Released weights that `densekit evaluate` has asked, or an official answer file "
            "(default: list the records)",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Whose they are, as in recipes/paper.yaml", show_default=False),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="What the file answers", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="Its questions with right answers, for the file", show_default=False),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Record what known models score here: without it a verdict is UNCALIBRATED.

    A folder calibrates the runner, an answer file the scorer of one benchmark.
    Exit code 0; 1 where a number is not the known one.
    """
    from densekit.cli.site import site_settings
    from densekit.cli.verdict_tables import CALIBRATION_HEADER, calibration_row
    from densekit.errors import UsageError
    from densekit.evaluate.calibration import calibrate_runner, calibrate_scorer
    from densekit.recipes.paper import load_paper
    from densekit.runs.calibrations import add_calibrations, read_calibrations

    place = site_settings(runs_dir=runs_dir).runs_dir
    if target is None:
        if model or benchmark or questions:
            raise UsageError("calibrate lists the records; with a FOLDER or FILE it adds to them")
        records = list(read_calibrations(place).records)
    elif model is None:
        raise UsageError(f"calibrate {target}: --model says whose known numbers must come out")
    elif target.is_dir():
        if benchmark or questions:
            raise UsageError("--benchmark and --questions belong to an answer file, not a folder")
        records = calibrate_runner(load_paper(), target, model=model)
    elif benchmark is None or questions is None:
        raise UsageError("an answer file needs --benchmark NAME and --questions FILE")
    else:
        records = [
            calibrate_scorer(
                load_paper(), target, model=model, benchmark=benchmark, questions=questions
            )
        ]
    if target is not None:
        add_calibrations(place, records)
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
    elif records:
        print_table([calibration_row(record) for record in records], header=CALIBRATION_HEADER)
    else:
        print(f"nothing is calibrated in {place}: docs/verdicts.md says how")
    raise typer.Exit(0 if all(record.passed for record in records) else 1)


def _runs(names: str, runs_dir: Path | None) -> list[Path]:
    from densekit.cli.site import site_settings
    from densekit.runs.find import find_runs

    return find_runs(names, site_settings(runs_dir=runs_dir).runs_dir)
