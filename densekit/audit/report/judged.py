"""What verdict.json says, as a page's rows: intervals, verdicts, the gain over a baseline."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from densekit.audit.report.facts import Problem, ScoreRow
from densekit.errors import DataError
from densekit.runs.evaluations import EvaluationFolder, StoredResult
from densekit.runs.verdicts import VERDICT_FILE, Gains, Line, Verdict, newer_answers, read_verdict


def verdict_of(run: Path, problems: list[Problem]) -> Verdict | None:
    """The verdict of a run, if it has one; one that cannot be read goes to `problems`."""
    try:
        return read_verdict(run)
    except DataError as error:
        problems.append(Problem(level="bad", message=str(error)))
        return None


def judged(row: ScoreRow, line: Line | None) -> ScoreRow:
    """The row of a benchmark with what its verdict says."""
    if line is None:
        return row
    notes = [row.note, line.note]
    if line.p is not None:
        notes.append(f"p {line.p:.2g}")
    if line.margin is not None:
        notes.append(f"margin {line.margin:g}")
    if len(line.by_run) > 1:
        notes.append(f"mean of {len(line.by_run)} runs: {', '.join(f'{v:g}' for v in line.by_run)}")
    paper = row.paper if line.reported is None else f"{line.reported:g}"
    return replace(
        row,
        ours=row.ours if line.ours is None else f"{line.ours:.4g}",
        interval=_interval(line.interval),
        paper=paper if line.reach is None else f"{paper} ± {line.reach:.2g}",
        verdict=line.verdict or row.verdict,
        note="; ".join(note for note in notes if note),
    )


def gain_rows(gains: Gains | None) -> Iterator[ScoreRow]:
    """The claim that the recipe is better than a baseline, a row a benchmark."""
    for gain in gains.lines if gains else ():
        runs = "" if gain.runs_needed is None else f"{gain.runs_needed} runs an arm would show it"
        notes = (f"p {gain.p:.2g}", runs, gain.note)
        yield ScoreRow(
            title=f"{gain.title}: gain over {gains.baseline if gains else ''}",
            ours=f"{gain.difference:+.3g}",
            interval=_interval((gain.low, gain.high)),
            paper="" if gain.reported is None else f"{gain.reported:+g}",
            verdict=gain.claim,
            note="; ".join(note for note in notes if note),
            file=VERDICT_FILE,
        )


def verdict_problems(
    verdict: Verdict | None, results: Mapping[str, tuple[EvaluationFolder, StoredResult]]
) -> Iterator[Problem]:
    """What a reader of the verdict has to know; `results` are the newest ones, by benchmark."""
    if verdict is None:
        return
    if verdict.changed:
        message = f"the recipe differs from the one that ships in {', '.join(verdict.changed)}"
        yield Problem(level="warn", message=f"{message}: the paper reports nothing on it")
    for line in verdict.calibrated:
        yield Problem(level="note", message=f"calibrated: {line}")
    if newer := newer_answers(verdict, results):
        message = f"{VERDICT_FILE} is of earlier answers than these of {', '.join(newer)}"
        yield Problem(level="warn", message=f"{message}: `densekit verdict` judges again")


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"
