"""Runs and trainer_state.json files of simulated trainings, as `densekit trajectory` reads them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.trajectory import Case
from densekit.batching.certificate import BatchCertificate
from densekit.files.json_files import write_json
from densekit.runs.layout import CERTIFICATE_FILE, RunDir, open_run
from densekit.runs.records import Position, Records, StepMetrics
from densekit.spec.math import RunMath
from tests.support.runs import made_math

MEASURED = ("ids", "images", "chain", "schema")
"""Fields of a record that are no measurement."""


def write_run(runs: Path, case: Case, *, steps: int | None = None) -> RunDir:
    """A run directory that has recorded the first steps of a case's run and trains on."""
    math = made_math({"optimizer": {"learning_rate": float(case.run.rates.max())}})
    run = open_run(runs, RunMath(recipe=math, starts_from=None, inputs={}))
    certificate = BatchCertificate(
        num_samples=128 * len(case.run.losses),
        steps=len(case.run.losses),
        samples_dropped=0,
        samples_repeated=0,
        sha256="0" * 64,
        source="simulated",
    )
    write_json(run.path / CERTIFICATE_FILE, certificate.as_json())
    with Records(run.path, Position(chain=run.sha256)) as records:
        for record in case.run.records(steps or case.steps):
            values = {key: item for key, item in asdict(record).items() if key not in MEASURED}
            records.append(StepMetrics(**values), [f"{record.step}"], [None])
    run.set_status("running")
    return run


def write_state(path: Path, log: list[dict[str, Any]], **more: Any) -> Path:
    """A trainer_state.json with these entries."""
    path.write_text(json.dumps({"log_history": log} | more), encoding="utf-8")
    return path
