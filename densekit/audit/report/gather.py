"""One run's page, gathered from its directory: nothing in it stops the page, damage is said."""

from pathlib import Path

from densekit.audit.report.curves import batch_section, loss_facts, run_charts, time_section
from densekit.audit.report.evidence import evidence_of, record_problems
from densekit.audit.report.facts import Problem, RunReport, Section
from densekit.audit.report.origin import origin_problems, origin_sections
from densekit.audit.report.privacy import Scrubber
from densekit.audit.report.samples import predictions_of
from densekit.audit.report.scores import missing_for_comparison, score_rows
from densekit.audit.run_reader import RecordedRun, read_run
from densekit.errors import DensekitError
from densekit.files.json_files import optional_object
from densekit.runs.layout import MISSING_FILE
from densekit.runs.results import RESULTS_FILE

UNKNOWN = "damaged"


def gather(path: Path) -> tuple[RunReport, RecordedRun]:
    """What a page says about a run, and the run. Raises DataError only where `path` is no run."""
    run = read_run(path)
    evidence = evidence_of(run)
    problems = [*record_problems(run, evidence), *origin_problems(run), *_count_problems(run)]
    sections = list(origin_sections(run))
    if run.steps:
        sections += [
            Section(title="Losses", facts=tuple(loss_facts(run))),
            time_section(run),
            batch_section(run),
        ]
    rows = list(score_rows(run, problems))
    predictions = tuple(predictions_of(run, problems))
    math = run.math
    return (
        RunReport(
            name=run.path.resolve().name,
            recipe=math.recipe.name if math else UNKNOWN,
            state=run.status.state if run.status else UNKNOWN,
            run_sha256=math.sha256 if math else "",
            problems=tuple(problems),
            sections=tuple(sections),
            charts=tuple(run_charts(run)),
            scores=tuple(rows),
            predictions=predictions,
            missing=tuple(missing_for_comparison(run, rows)),
            evidence=evidence,
        ),
        run,
    )


def scrubber_of(*runs: RecordedRun) -> Scrubber:
    """Takes paths and names out of the pages of these runs."""
    folders: dict[Path, str] = {Path.home(): "~"}
    hosts = set()
    for run in runs:
        for path in {run.path, run.path.absolute(), run.path.resolve()}:
            folders[path] = run.path.resolve().name
        if run.execution is not None:
            roots = run.execution.roots
            folders |= {getattr(roots, name): f"{name}:" for name in type(roots).model_fields}
        hosts |= _hosts(run)
    return Scrubber(folders, hosts)


def _hosts(run: RecordedRun) -> set[str]:
    """Machines that an attempt was started from."""
    found = set()
    for launch in run.path.glob("attempts/*/launch.json"):
        try:
            found.add(str(optional_object(launch).get("host", "")))
        except DensekitError:
            continue  # damaged: it names nobody
    return found


def _count_problems(run: RecordedRun) -> list[Problem]:
    """What was skipped, masked, dropped or repeated."""
    problems: list[Problem] = []

    def warn(message: str) -> None:
        problems.append(Problem(level="warn", message=message))

    if masked := sum(step.masked_samples for step in run.steps):
        warn(f"samples without a label: {masked:,}")
    if overflows := sum(step.overflows for step in run.steps):
        warn(f"fp16 overflows: {overflows:,}")
    if skipped := sum(not step.updated for step in run.steps):
        warn(f"steps whose batch changed no weight: {skipped:,}")
    if lost := sum(step.loss is None for step in run.steps):
        warn(f"steps whose loss is not finite: {lost:,}")
    if run.manifest is not None and (dropped := run.manifest.certificate.samples_dropped):
        warn(f"samples that an epoch drops: {dropped:,}")
    if (run.path / MISSING_FILE).is_file():
        warn(f"entries without a usable image were dropped or replaced: {MISSING_FILE} lists them")
    try:
        summary = optional_object(run.path / RESULTS_FILE).get("summary")
        notes = summary.get("notes") if isinstance(summary, dict) else None
        for name, count in sorted(notes.items()) if isinstance(notes, dict) else ():
            warn(f"samples with note {name}: {count}")
        if isinstance(summary, dict) and summary.get("empty_groups"):
            warn(f"reference groups without a label: {summary['empty_groups']}")
    except DensekitError as error:
        problems.append(Problem(level="bad", message=str(error)))
    return problems
