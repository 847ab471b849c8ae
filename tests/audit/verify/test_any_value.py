"""No damage is a traceback: any value of any type fails a check."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.diff.compare import compare_runs
from densekit.errors import DataError
from tests.support.audit import edit_line, edit_manifest, failures


def test_names_that_no_file_system_takes(run: Path) -> None:
    edit_manifest(run, outputs={"\0": "0" * 64})
    assert "cannot be read (embedded null byte)" in failures(run)["outputs"]
    line = json.loads((run / "feed.jsonl").read_text(encoding="utf-8").splitlines()[1])
    edit_line(run / "feed.jsonl", 2, samples=["\ud800", *line["samples"][1:]])
    assert (
        "feed.jsonl: line 2 is not a JSON object (it holds half of a surrogate pair)"
        in failures(run)["steps"]
    )


def places(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, three levels deep."""
    if isinstance(value, dict) and len(prefix) < 3:
        for name, item in value.items():
            yield (*prefix, name)
            yield from places(item, (*prefix, name))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = new
    return changed


@pytest.mark.parametrize(
    "name",
    [
        "math.json",
        "status.json",
        "manifest.json",
        "certificate.json",
        "attempts/0001/execution.json",
        "metrics.jsonl",
        "feed.jsonl",
    ],
)
def test_any_value_of_any_type_fails_a_check_without_a_traceback(
    run: Path, original: Path, name: str
) -> None:
    path = run / name
    text = path.read_text(encoding="utf-8")
    first, rest = text.split("\n", 1) if name.endswith("l") else (text, "")
    value = json.loads(first)
    # Not tied to anything else: free text, and the exit code of a run that has ended.
    free = {("message",), ("exit_code",), ("source",), ("num_samples",)}
    values = itertools.cycle((None, [1], "\0", {"a": {}}, True, 7))
    for place in sorted(set(places(value)) - free, key=str):
        new = next(values)
        changed = replaced(value, place, new)
        if json.dumps(changed) == json.dumps(value):
            continue
        path.write_text("\n".join([json.dumps(changed), rest]), encoding="utf-8")
        same = changed == value  # 1 and True
        assert same or failures(run), (place, new)
        for pair in ((run, original), (original, run)):
            with contextlib.suppress(DataError):
                compare_runs(*pair).report()
