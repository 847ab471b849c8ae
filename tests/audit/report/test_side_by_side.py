"""`densekit curves`: runs side by side, on one page and on a terminal."""

from pathlib import Path

import pytest

from densekit.audit.report.side_by_side import MOST, newest_runs, signs, write_curves
from densekit.errors import DataError, UsageError
from densekit.runs.records import METRICS_FILE
from tests.support.reports import Page
from tests.support.runs import make_world, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run that is complete and one that was stopped; no test changes them."""
    world = make_world(tmp_path_factory.mktemp("world"))
    folder = tmp_path_factory.mktemp("runs")
    return [train(world, folder), train(world, folder, recipe={"name": "other"}, stop_after=4)]


def test_a_page_has_every_run_in_every_chart(runs: list[Path], tmp_path: Path) -> None:
    to = tmp_path / "curves.html"
    made, other = write_curves(runs, to)
    assert (made.steps, other.steps) == (6, 4) and made.name.startswith("made-")
    html, page = to.read_text(encoding="utf-8"), Page(to)
    for title in ("Loss", "Learning rate", "Gradient norm"):
        assert title in page.text
    assert html.count("<title>") == 1 + 2 * html.count("<figure>"), "two curves in each chart"
    assert str(runs[0].parent) not in html and "<script" not in html
    assert "http" not in html.partition("<body>")[2].replace("http://www.w3.org", "")


def test_the_newest_runs_are_those_that_trained_last(runs: list[Path], tmp_path: Path) -> None:
    assert sorted(newest_runs(runs[0].parent)) == sorted(runs)
    with pytest.raises(DataError, match="has a step on record; `densekit run` trains one"):
        newest_runs(tmp_path)


def test_what_cannot_be_drawn_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="9 runs are too many for one page"):
        write_curves([runs[0]] * (MOST + 1), tmp_path / "a.html")
    world = make_world(tmp_path / "world")
    broken = train(world, tmp_path / "runs")
    (broken / METRICS_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        write_curves([broken], tmp_path / "a.html")
    (broken / METRICS_FILE).write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="has no step on record yet"):
        write_curves([broken], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_curve_in_signs() -> None:
    assert signs([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == "█▇▆▅▄▃▂▁"
    assert signs([1.0, None, float("nan"), 2.0]) == "▁  █"
    assert signs([3.0, 3.0]) == "▁▁" and signs([]) == signs([None]) == ""
    assert len(signs([float(n) for n in range(1000)])) <= 24
