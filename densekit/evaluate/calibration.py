"""Calibration: a scorer's, on an official answer file; the runner's, on released weights. What must
come out is in recipes/paper.yaml.
"""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.evaluate.answer_files import read_llava
from densekit.evaluate.labels import read_questions
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.scorers import scorer_sources
from densekit.evaluate.scoring import score_answers
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import optional_object
from densekit.recipes.noise import CalibrationTarget, Step
from densekit.recipes.paper import Paper
from densekit.runs.benchmarks import Protocol
from densekit.runs.calibrations import Calibration, Calibrations
from densekit.runs.environment import ENVIRONMENT_FILE
from densekit.runs.evaluations import EvaluationFolder, newest_results

PACKAGES = ("torch", "transformers", "tokenizers", "pillow")
"""Whose versions decide answers, where an evaluation does not say more."""


def scorer_environment(protocol: Protocol) -> str:
    """Identifies what a scorer's calibration holds for: the code of the scorers, and which figure
    of which one this benchmark reports.
    """
    which = [protocol.name, protocol.scorer, protocol.figure]
    return json_sha256({"sources": scorer_sources(), "benchmark": which})


def runner_environment(folder: EvaluationFolder) -> str:
    """Identifies what the runner's calibration holds for: versions, device, kernel and dtype."""
    evaluation = folder.evaluation
    versions: object = evaluation.environment
    if versions is None:
        packages = optional_object(folder.path / ENVIRONMENT_FILE).get("packages", {})
        versions = {name: packages.get(name) for name in PACKAGES}
    parts = (versions, evaluation.device, evaluation.kernel, evaluation.dtype)
    return json_sha256(list(parts))


def target_of(paper: Paper, step: Step, model: str, benchmark: str) -> CalibrationTarget:
    """What must come out. Raises UsageError where no source says it, naming what there is."""
    known = [target for target in paper.calibration if target.step == step]
    for target in known:
        if (target.model, target.benchmark) == (model, benchmark):
            return target
    there = sorted({f"{target.model} {target.benchmark}" for target in known})
    raise UsageError(
        f"no source says what {model} scores on {benchmark}; a {step} is calibrated with "
        f"{', '.join(there)} (recipes/paper.yaml, `calibration`)"
    )


def calibrate_scorer(
    paper: Paper, answers: Path, *, model: str, benchmark: str, questions: Path
) -> Calibration:
    """The record of an official answer file, which is scored here as the official scripts do.

    Raises as `target_of`, and DataError for a file of another form or of other questions.
    """
    protocol = get_protocol(benchmark)
    target = target_of(paper, "scorer", model, benchmark)
    asked = read_questions(protocol, questions)
    result = score_answers(protocol, asked, read_llava(answers, protocol, asked))
    return _record(
        target,
        value=result.value,
        questions=result.questions,
        environment=scorer_environment(protocol),
        evidence=file_sha256(answers),
    )


def calibrate_runner(paper: Paper, folder: Path, *, model: str) -> list[Calibration]:
    """The records of a released model's evaluations, of every benchmark whose number is known.

    Raises UsageError for a model of which no number is known, DataError where none of its
    benchmarks was asked whole.
    """
    targets = {t.benchmark: t for t in paper.calibration if (t.step, t.model) == ("runner", model)}
    if not targets:
        models = sorted({t.model for t in paper.calibration if t.step == "runner"})
        raise UsageError(f"the runner is calibrated with {', '.join(models)}, not with {model}")
    found = [
        _record(
            targets[name],
            value=result.value,
            questions=result.questions,
            environment=runner_environment(evaluation),
            evidence=result.answers_sha256,
        )
        for name, (evaluation, result) in newest_results(folder).items()
        if name in targets and result.complete and result.value is not None
    ]
    if not found:
        raise DataError(
            f"{folder} has no whole evaluation of {', '.join(sorted(targets))}: "
            f"`densekit evaluate {shlex.quote(str(folder))} --benchmarks {next(iter(targets))}`"
        )
    return found


def uncalibrated(
    known: Calibrations,
    protocol: Protocol,
    folders: Sequence[EvaluationFolder],
    targets: Mapping[Step, frozenset[str]],
) -> str:
    """What is missing before a benchmark's number is believed; empty: nothing.

    The scorer must have been calibrated on this benchmark; the runner too, or where nobody states
    what released weights score on it, on another one, in the environment of each evaluation.
    """
    title = protocol.title
    scorer = known.of("scorer", scorer_environment(protocol), protocol.name)
    if wrong := [record for record in scorer if not record.passed]:
        return f"its scorer gave {_miss(wrong[0])}"
    if not scorer:
        if protocol.name not in targets["scorer"]:
            return f"no source states a score of known answers to {title}"
        return "its scorer was not calibrated with an official answer file"
    for folder in folders:
        own = protocol.name if protocol.name in targets["runner"] else None
        runner = known.of("runner", runner_environment(folder), own)
        if wrong := [record for record in runner if not record.passed]:
            return f"the runner gave {_miss(wrong[0])}"
        if not runner:
            return "the runner was not calibrated with released weights in this environment"
    return ""


def targets_by_step(paper: Paper) -> dict[Step, frozenset[str]]:
    """The benchmarks whose known numbers are stated."""
    steps: tuple[Step, ...] = ("scorer", "runner")
    return {
        step: frozenset(t.benchmark for t in paper.calibration if t.step == step) for step in steps
    }


def _miss(record: Calibration) -> str:
    return (
        f"{record.value:.2f} for {record.model} on {record.benchmark}, where {record.expected:g} "
        f"within {record.tolerance:g} is known"
    )


def _record(
    target: CalibrationTarget, *, value: float, questions: int, environment: str, evidence: str
) -> Calibration:
    return Calibration(
        step=target.step,
        model=target.model,
        benchmark=target.benchmark,
        value=value,
        expected=target.value,
        tolerance=target.tolerance,
        questions=questions,
        environment=environment,
        evidence=evidence,
        on=datetime.now(UTC).date(),
    )
