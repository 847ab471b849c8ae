"""The kinds of tests and their needs, tried on tests that are made here."""

import re
from pathlib import Path

import pytest

from tests.support.kinds import KIND, KINDS
from tests.support.paths import ROOT

SETTINGS = """
[pytest]
markers = unit
    ranks
    system
    gpu
    slow
addopts = -p tests.support.needs -p tests.support.kinds -p no:cacheprovider -q
pythonpath = {root}
"""
pytest_plugins = ["pytester"]


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str, *, require: str = ""
) -> tuple[int, str]:
    """Exit code and output of pytest over a file with this text."""
    monkeypatch.setenv("DENSEKIT_REQUIRE", require)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini(SETTINGS.format(root=ROOT))
    pytester.makepyfile("import pytest, subprocess\nfrom tests.support.needs import needs\n" + text)
    done = pytester.runpytest_inprocess()
    return done.ret, "\n".join([*done.outlines, *done.errlines])


def test_every_test_here_has_exactly_one_kind(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        kinds = [mark.name for mark in item.iter_markers() if mark.name in KINDS]
        assert kinds == [item.stash[KIND]], item.nodeid


@pytest.mark.ranks
@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run(['true'])",
        "__import__('os').system('true')",
        "__import__('os').fork()",
        "try: subprocess.run(['true'])\n    except BaseException: pass",
    ],
)
def test_an_unmarked_test_that_starts_a_process_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    code, output = run(pytester, monkeypatch, f"def test_new():\n    {start}")
    assert code == 1 and "mark it `ranks` or `system`" in output, output
    marked = "@pytest.mark.ranks\ndef test_new():\n    subprocess.run(['true'])"
    assert run(pytester, monkeypatch, marked)[0] == 0


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@pytest.mark.ranks\n@pytest.mark.system\ndef test_new(): pass", "has several kinds"),
        ("@pytest.mark.slow\ndef test_new(): pass", "no unit test is slow"),
        (
            "@pytest.fixture\ndef slurm(): pass\n@pytest.mark.unit\ndef test_new(slurm): pass",
            "is marked `unit`, and its fixtures `system`",
        ),
    ],
    ids=["two kinds", "slow unit test", "system fixture in a unit test"],
)
def test_contradicting_marks_are_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    code, output = run(pytester, monkeypatch, text)
    assert code == 4 and message in output, output


WITHOUT_DOCKER = "def test_new(): needs('docker', 'there is no engine')"


@pytest.mark.ranks
def test_a_missing_need_skips_and_is_listed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run(pytester, monkeypatch, WITHOUT_DOCKER, require="slurm")
    assert code == 0 and "   1  docker: there is no engine" in output, output


@pytest.mark.ranks
def test_a_required_need_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(pytester, monkeypatch, WITHOUT_DOCKER, require="slurm,docker")
    assert code == 1 and "DENSEKIT_REQUIRE names docker" in output, output
    code, output = run(pytester, monkeypatch, WITHOUT_DOCKER, require="podman")
    assert code == 4 and "no need is called podman" in output, output


def test_nothing_is_skipped_past_needs() -> None:
    skips = re.compile(r"pytest\.skip\(|importorskip|mark\.skip|unittest\.skip|pytest\.exit\(")
    allowed = {Path(__file__), ROOT / "tests/support/needs.py"}
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path not in allowed
        for line in path.read_text(encoding="utf-8").splitlines()
        if skips.search(line)
    ]
    assert not found, "\n".join(found)
