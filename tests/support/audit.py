"""What tests of diff and verify share: reading a finding, and damaging a run's files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densekit.audit.diff.compare import Comparison
from densekit.audit.verify.verify import verify_run
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.runs.records import StepRecord, chain_next
from densekit.spec.check import Check

REMEDIES = (
    "retrain|put the original back|restore the original|put that run back"
    "|put back a copy|use the version of densekit"
)
Edit = Callable[[str], str]


def explaining(found: Comparison) -> list[str]:
    """What can explain the first divergence, the most likely first."""
    return [cause.message for cause in found.explanations if cause.relevance == "explains"]


def where(found: Comparison) -> tuple[str, int]:
    """Kind and step of the first divergence."""
    return found.divergences[0].kind, found.divergences[0].step


def samples_of(run: Path, *, step: int) -> list[str]:
    """The sample ids of a step."""
    lines = (run / "feed.jsonl").read_text(encoding="utf-8").splitlines()
    samples: list[str] = json.loads(lines[step - 1])["samples"]
    return samples


def edit_metrics(run: Path, step: int, **values: Any) -> None:
    """Change a line of metrics.jsonl and link everything again, as a run with these numbers would
    have.
    """
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines[step - 1] |= values
    chain = RunDir(run).sha256
    for line in lines:
        chain = line["chain"] = chain_next(chain, StepRecord(**line))
    (run / "metrics.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8"
    )


def failures(run: Path) -> dict[str, str]:
    """The messages of the checks that failed, by name; a failed check says what to do."""
    failed = [check for check in verify_run(run) if check.state == "fail"]
    for check in failed:
        assert re.search(REMEDIES, check.message), check
    return {check.name: check.message for check in failed}


def check_names(checks: list[Check], state: str) -> list[str]:
    """Names of the checks in a state, in order."""
    return [check.name for check in checks if check.state == state]


def edit(path: Path, change: Edit) -> None:
    """Change the text of a file."""
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


def edit_line(path: Path, number: int, **values: Any) -> None:
    """Change values of one line of a JSON Lines file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **values})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def edit_manifest(run: Path, **values: Any) -> None:
    """Change the manifest and seal it again, as a forger would."""
    write_json(run / "manifest.json", sealed({**read_json(run / "manifest.json"), **values}))
