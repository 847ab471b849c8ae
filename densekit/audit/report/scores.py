"""The scores of a run beside the paper's, and what a comparison with the paper still needs."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from densekit.audit.report.facts import Problem, ScoreRow
from densekit.audit.report.judged import gain_rows, judged, verdict_of, verdict_problems
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import count_of
from densekit.errors import DataError
from densekit.recipes.paper import Paper, load_paper
from densekit.runs.evaluations import EvaluationFolder, StoredResult, newest_results


def score_rows(run: RecordedRun, problems: list[Problem]) -> Iterator[ScoreRow]:
    """A row for every benchmark that was asked or that the paper reports; what cannot be read goes
    to `problems`.
    """
    paper = _paper() if run.math and run.math.recipe.assets is None else None
    scores = paper.scores(run.math.recipe.name) if paper and run.math else {}
    reported = {key: f"{score.value}" for key, score in scores.items()}
    try:
        results = newest_results(run.path)
    except DataError as error:
        problems.append(Problem(level="bad", message=str(error)))
        results = {}
    verdict = verdict_of(run.path, problems)
    problems += verdict_problems(verdict, results)
    lines = {line.benchmark: line for line in verdict.lines} if verdict else {}
    for benchmark, (folder, result) in results.items():
        row = _result_row(run.path, folder, result, reported.pop(benchmark, ""))
        yield judged(row, lines.get(benchmark))
    yield from gain_rows(verdict.gains if verdict else None)
    for benchmark, value in reported.items():
        yield ScoreRow(
            title=paper.benchmarks[benchmark].title if paper else benchmark,
            ours="not asked",
            interval="",
            paper=value,
            verdict="",
            note="",
            file="",
        )


def missing_for_comparison(run: RecordedRun, rows: list[ScoreRow]) -> Iterator[str]:
    """What a comparison with the paper still needs, a sentence each."""
    if not run.complete:
        yield "the run is not complete: `densekit run` resumes it"
    if run.math is not None and run.math.recipe.assets is not None:
        yield "the recipe is a tiny one: train a recipe of the paper's tables"
    if run.math is not None and run.math.recipe.stage == 1:
        yield "this is stage 1, which trains the connector alone: the paper reports stage 2"
    unasked = [row.title for row in rows if row.ours == "not asked"]
    if unasked:
        yield f"not asked yet (`densekit evaluate`): {', '.join(unasked)}"
    if any(row.ours != "not asked" and row.paper and not row.verdict for row in rows):
        yield "scores that nobody judged: `densekit verdict` compares them with the paper's"
    if run.manifest is not None and run.manifest.data.certificate_root is None:
        yield (
            "the images' bytes are not certified: `densekit data verify --full` before the run "
            "makes a data certificate"
        )
    if run.manifest is not None and not all(
        files.revision for files in run.manifest.models.values()
    ):
        yield "a model folder does not say its commit: `densekit fetch` notes it"
    if run.steps and not any("memory" in name for name in vars(run.steps[0])):
        yield "GPU memory is not on record: this version measures none"


@cache
def _paper() -> Paper:
    return load_paper()


def _result_row(run: Path, folder: EvaluationFolder, result: StoredResult, paper: str) -> ScoreRow:
    notes = [result.problem or "", result.other_protocol or ""]
    if not result.complete:
        notes.append(f"{result.questions:,} of {count_of(result.available, 'question')} asked")
    if result.dtype != result.official_dtype:
        notes.append(f"answered in {result.dtype}, officially {result.official_dtype}")
    notes += [f"{name} {count}" for name, count in sorted(result.notes.items())]
    figures = result.figures
    if "right" in figures:
        notes.append(f"{figures['right']:.0f}/{result.questions}")
    if "majority_class" in figures:
        notes.append(f"majority class {figures['majority_class']:.1f}")
    return ScoreRow(
        title=f"{result.title} ({result.split})",
        ours="no value" if result.value is None else f"{result.value:.4g}",
        interval=f"from {figures['wilson_lower']:.1f}" if "wilson_lower" in figures else "",
        paper=paper,
        verdict="OTHER PROTOCOL" if result.other_protocol else "",
        note="; ".join(note for note in notes if note),
        file=(folder.path / "results.json").relative_to(run).as_posix(),
    )
