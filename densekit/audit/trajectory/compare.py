"""`densekit trajectory`: a run, also one that still trains, beside a published log."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densekit.audit.trajectory.alignment import FEWEST, align
from densekit.audit.trajectory.offset import EARLY, measure_offset
from densekit.audit.trajectory.pairs import paired, run_losses, sample_lengths, varying
from densekit.audit.trajectory.published import PublishedLog, read_published
from densekit.audit.trajectory.rates import compare_rates
from densekit.audit.trajectory.situation import Evidence, RunFacts, Situation, situations
from densekit.audit.wording import count_of
from densekit.batching.certificate import BatchCertificate
from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json
from densekit.runs.layout import CERTIFICATE_FILE, MATH_FILE, RunDir
from densekit.runs.records import METRICS_FILE, REMEDY, StepRecord, read_steps

SCHEMA = 1
"""Of `densekit trajectory --json`."""
BAND = 0.05
"""Share of the file's loss that an offset may be."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What comparing a run with a published log found."""

    run: str
    file: str
    evidence: Evidence
    situations: tuple[Situation, ...]

    @property
    def consistent(self) -> bool:
        """Whether nothing speaks against the run; true also where too little is there to say."""
        return not any(found.against for found in self.situations)

    @property
    def headline(self) -> str:
        """Everything that holds, in one line."""
        return "; ".join(found.message for found in self.situations)

    def report(self) -> list[str]:
        """The finding, one line each."""
        return [
            f"run: {self.run} ({self._length()})",
            f"file: {self.file} ({_described(self.evidence.log)})",
            *self._order(),
            *self._offset(),
            self._rates(),
            *(f"finding: {found.message}" for found in self.situations),
            "nothing speaks against the run"
            if self.consistent
            else "the run does not follow the "
            "file: docs/how-to/trajectory.md says what each finding means",
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        evidence = self.evidence
        log = evidence.log
        value = {
            "schema": SCHEMA,
            "run": self.run,
            "file": self.file,
            "consistent": self.consistent,
            "situations": [asdict(found) for found in self.situations],
            "entries": len(evidence.pairs),
            "run_steps": evidence.run.steps,
            "run_length": evidence.run.length,
            "file_interval": log.interval,
            "file_length": log.length,
            "alignment": asdict(evidence.alignment),
            "best_p": evidence.alignment.best_p,
            "offset": asdict(evidence.offset) if evidence.offset else None,
            "rates": asdict(evidence.rates),
            "band": evidence.band,
        }
        plain: dict[str, Any] = _finite(value)
        return plain

    def _length(self) -> str:
        run = self.evidence.run
        whole = "" if run.length is None else f" of {run.length}"
        return f"{run.steps}{whole} steps"

    def _order(self) -> Iterator[str]:
        found = self.evidence.alignment
        if found.best is None:
            yield f"lag: not looked for, fewer than {FEWEST} entries at every lag"
            return
        if found.zero is not None:
            yield (
                f"lag 0: r {found.zero.correlation:+.3f} over {found.zero.pairs} entries, "
                f"z {found.zero.z:.1f}"
            )
        yield (
            f"best lag: {found.best.lag} (r {found.best.correlation:+.3f}, z {found.best.z:.1f}); "
            f"null, {found.lags} lags: mean {found.null_mean:+.3f}, sd {found.null_sd:.3f}, "
            f"largest {found.null_largest:+.3f}"
        )

    def _offset(self) -> Iterator[str]:
        offset, band = self.evidence.offset, self.evidence.band
        if offset is None:
            yield "offset: the run and the file have no step in common"
            return
        yield (
            f"offset (file less run): {offset.mean:+.4f} ± {offset.error:.4f}; first {EARLY} "
            f"entries {offset.early:+.4f}, last {EARLY} {offset.late:+.4f}; drift "
            f"{offset.drift:+.4f} ± {offset.drift_error:.4f} by 100 steps"
        )
        where = (
            f"first left at step {offset.first_outside}"
            if offset.first_outside is not None
            else "not left"
        )
        yield f"band of {100 * band:g} % around the file, means of {EARLY} entries: {where}"

    def _rates(self) -> str:
        rates = self.evidence.rates
        if not rates.compared:
            return "learning rates: none to compare"
        which = "the next step's" if rates.logged_ahead else "each step's own"
        if rates.equal:
            return (
                f"learning rates: equal in {count_of(rates.compared, 'entry', 'entries')} ({which})"
            )
        return f"learning rates: differ from step {rates.first} on ({which})"


def follow(run: Path, file: Path, *, band: float = BAND) -> Trajectory:
    """Compare a run directory with a trainer_state.json, or with the one in a folder.

    A run that still trains is read as far as it is. Raises UsageError for a band that is no share,
    DataError when a folder is no run directory, the run has no step, or the file is no log.
    """
    return compare(run, read_published(file), band=band)


def compare(run: Path, log: PublishedLog, *, band: float = BAND) -> Trajectory:
    """As `follow`, for a log that was read before."""
    if not (math.isfinite(band) and 0 < band < 1):
        raise UsageError(f"--band {band}: give a share between 0 and 1, e.g. 0.05")
    if not (run / MATH_FILE).is_file():
        raise DataError(
            f"{run} is not a run directory: it has no {MATH_FILE}; give a folder that "
            "`densekit run` made"
        )
    records = steps_so_far(run)
    if not records:
        raise DataError(f"{run} has no step in its {METRICS_FILE} yet: train it, then compare")
    evidence, found = judge(records, log, _facts(RunDir(run), records), band=band)
    return Trajectory(run=str(run), file=str(log.path), evidence=evidence, situations=found)


def steps_so_far(run: Path) -> list[StepRecord]:
    """The steps on record, without a last line that is being written; empty before the first."""
    path = run / METRICS_FILE
    if not path.exists():
        return []
    try:
        whole = path.read_bytes().rfind(b"\n") + 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {REMEDY}") from None
    return read_steps(path, size=whole)


def judge(
    records: Sequence[StepRecord], log: PublishedLog, run: RunFacts, *, band: float = BAND
) -> tuple[Evidence, tuple[Situation, ...]]:
    """What holds between the steps of a run and a published log, and what it rests on."""
    pairs = paired(log, records)
    evidence = Evidence(
        log=log,
        run=run,
        pairs=pairs,
        alignment=align(run_losses(records), log),
        lengths=align(varying(sample_lengths(records)), log),
        rates=compare_rates(log, records),
        offset=measure_offset(pairs, band),
        band=band,
    )
    return evidence, situations(evidence)


def _facts(run: RunDir, records: Sequence[StepRecord]) -> RunFacts:
    recipe = run.math.recipe
    return RunFacts(
        stage=recipe.stage,
        positions=recipe.positions,
        learning_rate=recipe.optimizer.learning_rate,
        length=_planned_steps(run.path),
        steps=len(records),
        not_finite=tuple(step.step for step in records if step.loss is None),
    )


def _planned_steps(run: Path) -> int | None:
    path = run / CERTIFICATE_FILE
    if not path.exists():
        return None
    return BatchCertificate.from_json(read_json(path, remedy=REMEDY)).steps


def _described(log: PublishedLog) -> str:
    length = "" if log.length is None else f" of {log.length}"
    every = "every step" if log.interval == 1 else f"every {log.interval} steps"
    return f"up to step {log.last}{length}, logged {every}"


def _finite(value: Any) -> Any:
    """JSON has no infinities: null instead."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
