"""`densekit evaluate`: asks a model the paper's benchmarks, or scores an answer file; and `answer`,
which launchers start for it.
"""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import (
    AsJson,
    CacheDir,
    Container,
    DataDir,
    DeviceName,
    DtypeName,
    Gpus,
    Image,
    LauncherName,
    ModelsDir,
    Nodes,
    QueueMinutes,
    RunsDir,
    Sbatch,
    complete_runs,
)
from densekit.cli.output import counted, print_json, print_lines, print_table
from densekit.cli.packages import need_training_packages
from densekit.errors import UsageError
from densekit.spec.types import Semantics

commands = typer.Typer()
NOTES = {
    "unparsed": "that nothing could be read out of",
    "drawn": "without a letter, for which one of {} was drawn",
    "judge": "read by rules in place of the retired judge",
}
"""What the notes of densekit.evaluate's scores mean, by their first word."""
OF_FILES = "With --as: answer files"


@commands.command(
    rich_help_panel="Evidence",
    epilog="Example: densekit evaluate tiny_stage2 --benchmarks held_out --limit 16",
)
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FOLDER...",
            help="Complete runs, or folders that `densekit import` made; with --as an answer file",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ],
    benchmarks: Annotated[
        str | None,
        typer.Option(
            help="Names as in recipes/paper.yaml, separated by commas (default: those whose data "
            "is here)",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Images of each benchmark at most, chosen by hash; the figures are then "
            "INCOMPLETE",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Questions asked together (default: the protocol's, mostly 1); first a sample is "
            "asked both ways",
            show_default=False,
        ),
    ] = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
    launcher: LauncherName = None,
    device: DeviceName = None,
    dtype: DtypeName = None,
    image: Image = None,
    container: Container = None,
    sbatch: Sbatch = None,
    queue_minutes: QueueMinutes = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Score an answer file of this form: llava",
            show_default=False,
            rich_help_panel=OF_FILES,
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="What it answers: a name as in recipes/paper.yaml",
            show_default=False,
            rich_help_panel=OF_FILES,
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="The benchmark's questions with right answers: its own file, or JSON lines",
            show_default=False,
            rich_help_panel=OF_FILES,
        ),
    ] = None,
    semantics: Annotated[
        Semantics,
        typer.Option(
            help="faithful: as the official scripts score; fixed: without quirks",
            rich_help_panel=OF_FILES,
        ),
    ] = "faithful",
    as_json: AsJson = False,
) -> None:
    """Ask models the paper's benchmarks and score the answers, offline; what was answered already
    is not asked again, and an evaluation that was stopped goes on.

    With --as llava, score an answer file of the official runners.
    """
    if form is not None:
        if len(targets) != 1:
            raise UsageError(f"--as {form}: one answer file at a time, not {len(targets)}")
        _score_file(Path(targets[0]), form, benchmark, questions, semantics, as_json=as_json)
        return
    if benchmark is not None or questions is not None:
        raise UsageError(
            "--benchmark and --questions belong to an answer file (--as llava); a model is asked "
            "--benchmarks NAME,NAME"
        )
    from densekit.cli.site import named_run, site_settings
    from densekit.launch.evaluation import evaluate as evaluate_model
    from densekit.launch.evaluation import report
    from densekit.launch.evaluation_selection import select_for_evaluation
    from densekit.launch.launchers.options import LauncherOptions
    from densekit.launch.screen import screen
    from densekit.spec.execution import ExecutionRequest

    site = site_settings(
        runs_dir=runs_dir, data_dir=data_dir, models_dir=models_dir, cache_dir=cache_dir
    )
    sources = [named_run(target, site.runs_dir) for target in targets]
    names = [name.strip() for name in (benchmarks or "").split(",") if name.strip()]
    found = {}
    try:
        for source in sources:
            selection = select_for_evaluation(
                source,
                ExecutionRequest(device=device, world_size=gpus, nodes=nodes, dtype=dtype),
                launcher=launcher,
                options=LauncherOptions(
                    image=image,
                    container=container,
                    sbatch=tuple(sbatch or ()),
                    queue_minutes=queue_minutes,
                ),
                site=site,
            )
            with screen():
                evaluated = evaluate_model(
                    source,
                    benchmarks=names,
                    limit=limit,
                    batch_size=batch_size,
                    execution=selection.execution,
                    launcher=selection.launcher,
                )
            if evaluated.code != 0:
                raise typer.Exit(evaluated.code)
            assert evaluated.folder is not None
            found[str(source)] = [result.model_dump(mode="json") for result in evaluated.results]
            if not as_json:
                print_lines(report(evaluated.results))
                print(f"answers and scores in {evaluated.folder.path}")
    finally:
        # What was asked before something failed is not lost.
        if as_json and found:
            print_json(found)


@commands.command(hidden=True, epilog="Example: densekit answer runs/RUN/evaluations/HASH")
def answer(
    evaluation_dir: Annotated[
        Path, typer.Argument(help="An evaluation's folder that `densekit evaluate` made")
    ],
) -> None:
    """Ask what an evaluation has no answer to yet, in this process (launchers start this)."""
    need_training_packages()
    from densekit.runs.evaluations import EvaluationFolder
    from densekit.runs.launch_variables import clear_for

    clear_for(evaluation_dir, EvaluationFolder(evaluation_dir).execution, verb="answer")
    from densekit.evaluate.runner.task import answer as answer_evaluation

    answer_evaluation(evaluation_dir)


def _score_file(
    target: Path,
    form: str,
    benchmark: str | None,
    questions: Path | None,
    semantics: Semantics,
    *,
    as_json: bool,
) -> None:
    if form != "llava":
        raise UsageError(f"--as {form}: the form of answer files that is read is llava")
    if benchmark is None or questions is None:
        raise UsageError("an answer file needs --benchmark NAME and --questions FILE")
    from densekit.evaluate.answer_files import read_llava
    from densekit.evaluate.labels import read_questions
    from densekit.evaluate.protocols import get_protocol
    from densekit.evaluate.protocols.prompts import prompt_sha256
    from densekit.evaluate.scoring import score_answers

    protocol = get_protocol(benchmark)
    asked = read_questions(protocol, questions)
    result = score_answers(
        protocol,
        asked,
        read_llava(target, protocol, asked),
        semantics=semantics,
    )
    if as_json:
        print_json(
            {
                "benchmark": result.benchmark,
                "semantics": result.semantics,
                "value": result.value,
                "questions": result.questions,
                "figures": dict(result.figures),
                "notes": dict(result.notes),
                "other_protocol": protocol.other_protocol,
                "prompt_sha256": prompt_sha256(protocol),
            }
        )
        return
    print(f"{protocol.title} {protocol.split}, {result.semantics}: {result.value:.2f}\n")
    rows = [(name, f"{value:.2f}") for name, value in result.figures.items()]
    print_table(rows, header=("figure", "value"))
    print(f"\n{counted(result.questions, 'question')}")
    for note, count in result.notes.items():
        print(f"{counted(count, 'answer')} {_in_words(note)}")
    if protocol.other_protocol:
        print(f"OTHER PROTOCOL: {protocol.other_protocol}")


def _in_words(note: str) -> str:
    kind, _, options = note.partition(" ")
    return NOTES[kind].format(options) if kind in NOTES else f"with the note `{note}`"
