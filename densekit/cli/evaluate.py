"""`densekit evaluate`: scores an answer file; asking a run's model is refused until it is built."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import AsJson
from densekit.cli.output import print_json, print_table
from densekit.errors import UsageError
from densekit.spec.types import Semantics

commands = typer.Typer()
NOTES = {
    "unparsed": "that nothing could be read out of",
    "drawn": "without a letter, for which one of {} was drawn",
    "judge": "read by rules in place of the retired judge",
}
"""What the notes of densekit.evaluate's scores mean, by their first word."""


@commands.command(
    rich_help_panel="Evidence",
    epilog="Example: densekit evaluate answers.jsonl --as llava --benchmark gqa "
    "--questions testdev_balanced_questions.json",
)
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Answer file of an official runner (with --as)", show_default=False
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option("--as", help="Form of the answer file: llava", show_default=False),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Name as in recipes/paper.yaml", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="The benchmark's questions with right answers: its own file, or JSON lines",
            show_default=False,
        ),
    ] = None,
    semantics: Annotated[
        Semantics,
        typer.Option(help="faithful: as the official scripts score; fixed: without quirks"),
    ] = "faithful",
    as_json: AsJson = False,
) -> None:
    """Score an answer file of the official runners, offline (models are not asked yet)."""
    if form is None:
        raise UsageError(
            f"evaluate {target}: a run's model cannot be asked the paper's benchmarks yet; an "
            "answer file is scored with --as llava --benchmark NAME --questions FILE, and tiny "
            "recipes ask their held-out questions at the end of `densekit run`"
        )
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
        read_llava(Path(target), protocol, asked),
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
    print(f"\n{_count(result.questions, 'question')}")
    for note, count in result.notes.items():
        print(f"{_count(count, 'answer')} {_in_words(note)}")
    if protocol.other_protocol:
        print(f"OTHER PROTOCOL: {protocol.other_protocol}")


def _in_words(note: str) -> str:
    kind, _, options = note.partition(" ")
    return NOTES[kind].format(options) if kind in NOTES else f"with the note `{note}`"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
