"""`densekit report`: where pages go, and what is refused."""

from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.reports import Page
from tests.support.runs import make_world, train


@pytest.fixture
def runs(run_cli: Cli, tmp_path: Path) -> Path:
    """Two runs in the folder `runs` of the working directory."""
    world = make_world(tmp_path / "world")
    train(world, Path("runs"))
    train(world, Path("runs"), recipe={"name": "other"})
    return Path("runs")


def test_a_page_goes_into_its_run(run_cli: Cli, runs: Path) -> None:
    result = run_cli("report", "made")
    (page,) = runs.glob("made-*/report.html")
    assert result == (0, f"{page}\n", "")
    assert "What ran" in Page(page).text


def test_two_runs_are_compared_beside_them(run_cli: Cli, runs: Path) -> None:
    assert run_cli("report", "made", "other") == (0, "runs/comparison.html\n", "")
    assert "2 runs compared" in Page(runs / "comparison.html").text
    assert run_cli("report", "made", "other", "--to", "a.html").out == "a.html\n"


def test_all_is_an_index(run_cli: Cli, runs: Path) -> None:
    assert run_cli("report", "--all") == (0, "runs/report.html\n", "")
    assert "2 runs" in Page(runs / "report.html").text


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ((), 2, "name at least one run, or give --all"),
        (("made", "--all"), 2, "name at least one run, or give --all"),
        (("nothing",), 3, "no run nothing in runs"),
        (("made", "--to", "no/page.html"), 2, "--to no/page.html: no is no folder"),
        (("--all", "--runs-dir", "none"), 2, "no run in none"),
        (("world",), 3, "is not a run directory"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    run_cli: Cli, runs: Path, words: tuple[str, ...], code: int, problem: str
) -> None:
    result = run_cli("report", *words)
    assert result.code == code
    assert problem in result.err
    assert "Traceback" not in result.err


def test_a_dossier_is_packed_and_verified(run_cli: Cli, runs: Path) -> None:
    result = run_cli("dossier", "made", "other", "--to", "both.zip")
    assert result.code == 0, result.err
    assert result.out.splitlines()[0].startswith("made: runs/made-")
    assert "both.zip: " in result.out and "SHA-256 " in result.out
    checked = run_cli("verify", "both.zip")
    assert checked.code == 0 and "fail" not in checked.out
    data = bytearray(Path("both.zip").read_bytes())
    data[200] ^= 1
    Path("both.zip").write_bytes(data)
    checked = run_cli("verify", "both.zip")
    assert checked.code == 1 and "it was changed" in checked.out


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("made", "--to", "a.tar"), 2, "ends in .zip"),
        (("made", "--to", "no/a.zip"), 2, "in a folder that exists"),
        (("nothing", "--to", "a.zip"), 3, "no run nothing"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    run_cli: Cli, runs: Path, words: tuple[str, ...], code: int, problem: str
) -> None:
    result = run_cli("dossier", *words)
    assert (result.code, problem in result.err) == (code, True), result.err
    assert "Traceback" not in result.err


def test_curves_of_named_runs_and_of_the_newest(run_cli: Cli, runs: Path) -> None:
    result = run_cli("curves", "made", "--to", "a.html")
    assert (result.code, result.err) == (0, "")
    header, row, page = result.out.splitlines()
    assert header.split()[:3] == ["run", "steps", "loss"] and row.startswith("made-")
    assert page == "a.html" and "Curves of 1 run" in Page(Path(page)).text
    assert run_cli("curves").out.splitlines()[-1] == "runs/curves.html"
    assert "Curves of 2 runs" in Page(runs / "curves.html").text
    assert run_cli("curves", "--runs-dir", "none").code == 3
    assert run_cli("curves", "--to", "no/a.html").code == 2
