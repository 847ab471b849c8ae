"""Pages of several runs and of a whole folder."""

import shutil
import time
from pathlib import Path

import pytest

from densekit.audit.report.index import POINTS, sampled_losses
from densekit.audit.report.write import MOST_COMPARED, write_comparison, write_index, write_report
from densekit.errors import UsageError
from tests.support.reports import Page
from tests.support.runs import make_world, train

RUNS = 50
SECONDS = 5.0
"""A quarter of what 200 runs may take."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that differ in their seed; no test changes them."""
    world = make_world(tmp_path_factory.mktemp("world"))
    runs = tmp_path_factory.mktemp("runs")
    return train(world, runs), train(world, runs, recipe={"seed": 7})


def test_a_comparison_says_where_runs_diverge(pair: tuple[Path, Path]) -> None:
    to = pair[0].parent / "comparison.html"
    page = Page(write_comparison(pair, to))
    assert "runs diverge at step 1:" in page.text
    assert "seed" in page.text
    assert page.source.count('<path class="s1') >= 3
    for run in pair:
        assert f"{run.name}/metrics.jsonl" in page.links
    cited = {link[1:] for link in page.links if link.startswith("#")}
    assert cited <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_a_run_with_itself_moved_is_identical(pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pair[0], tmp_path / pair[0].name))
    text = Page(write_comparison([pair[0], copy], tmp_path / "page.html")).text
    assert "runs are identical" in text
    assert f"1: {copy.name} and 2: {copy.name}" in text


def test_a_damaged_run_is_compared_as_far_as_it_goes(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pair[0], tmp_path / pair[0].name))
    (copy / "metrics.jsonl").write_text("{", encoding="utf-8")
    page = Page(write_comparison([pair[1], copy], tmp_path / "page.html"))
    assert "not compared:" in page.text
    assert "damaged or edited" in page.text
    assert str(tmp_path) not in page.source


def test_a_page_has_as_many_runs_as_colours(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most 8, or --all"):
        write_comparison([pair[0]] * (MOST_COMPARED + 1), tmp_path / "page.html")


def test_an_index_lists_every_run(pair: tuple[Path, Path], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    good = Path(shutil.copytree(pair[0], runs / pair[0].name))
    bad = Path(shutil.copytree(pair[1], runs / pair[1].name))
    (bad / "status.json").write_text("{", encoding="utf-8")
    write_report(good)
    page = Page(write_index(runs))
    assert f"{good.name} complete 6/6" in page.text
    assert f"{bad.name} damaged 6/6" in page.text
    assert page.links == [f"{good.name}/report.html"]
    assert str(tmp_path) not in page.source
    assert "2 runs" in page.text


def test_an_index_of_many_runs_is_quick(pair: tuple[Path, Path], tmp_path: Path) -> None:
    steps = (pair[0] / "metrics.jsonl").read_bytes()
    for number in range(RUNS):
        run = tmp_path / f"made-{number:010x}"
        run.mkdir()
        for name in ("math.json", "status.json", "certificate.json", "results.json"):
            (run / name).symlink_to(pair[0] / name)
        (run / "metrics.jsonl").write_bytes(steps * 100)
    started = time.monotonic()
    page = Page(write_index(tmp_path))
    assert time.monotonic() - started < SECONDS
    assert page.tags.count("tr") == RUNS + 1


def test_losses_are_sampled_to_the_last(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"loss": {number}.0}}\n' for number in range(1000)]
    lines[999 - 13] = "not JSON\n"
    path.write_text("".join(lines), encoding="utf-8")
    losses, count = sampled_losses(path)
    assert count == 1000
    assert losses[-1] == 999.0 and losses[-2] is None and losses[-3] == 973.0
    assert len(losses) <= POINTS
    assert sampled_losses(tmp_path / "none") == ([], 0)
