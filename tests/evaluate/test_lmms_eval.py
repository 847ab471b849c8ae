"""lmms-eval itself asks a tiny model what densekit's evaluator asked it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from densekit.evaluate.results import finish
from densekit.launch import cross_check
from tests.support.evaluating import ask, copy_of
from tests.support.needs import needs
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def run(workplace: Workplace, tmp_path: Path) -> Path:
    """A copy of a run that was evaluated, one question at a time."""
    if not (cross_check.PACKAGES / "lmms_eval" / "__init__.py").is_file():
        needs("lmms-eval", f"it is not in {cross_check.PACKAGES}")
    copy = copy_of(workplace.run_dir("tiny_stage2"), tmp_path / "run")
    asked = ask(copy)
    asked.attempt(1)
    finish(asked.folder, {})
    return copy


def test_the_same_answers_and_scores(run: Path) -> None:
    found = cross_check.cross_check(run)
    assert {each.benchmark for each in found} == {"held_out", "held_out_shuffled"}
    for each in found:
        assert each.agrees, [*each.report()]
        assert each.comparable and each.densekit == pytest.approx(each.lmms_eval)


def test_lmms_eval_looks_at_its_own_rows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other right answers in its rows, and the two no longer agree."""
    ask_lmms = cross_check._ask

    def with_other_rows(folder, tasks):  # type: ignore[no-untyped-def]
        path = folder.path / cross_check.FOLDER / "tasks" / "held_out.parquet"
        table = pq.read_table(path)
        rows = [row | {"gold": ["nothing"]} for row in table.to_pylist()]
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
        return ask_lmms(folder, tasks)

    monkeypatch.setattr(cross_check, "_ask", with_other_rows)
    (found,) = cross_check.cross_check(run, ["held_out"])
    assert not found.differing and found.lmms_eval == 0
    right = round(found.densekit * found.questions / 100) if found.densekit else 0
    assert len(found.scored_differently) == right and found.agrees is (right == 0)
