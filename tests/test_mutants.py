"""`make mutants`: which changes are made, what is kept, and which mutants the tests kill."""

import ast
import json
from pathlib import Path

import pytest

from tools.mutants.__main__ import ROOMS, ROOT, main, select, stale
from tools.mutants.kept import Results, read_equivalents
from tools.mutants.mutate import mutants
from tools.mutants.room import Verdict


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("a + b", ["a - b"]),
        ("a += b", ["a -= b"]),
        ("a < b <= c", ["a <= b <= c", "a < b < c"]),
        ("a and b", ["a or b"]),
        ("not a", ["a"]),
        ("7", ["8", "6"]),
        ("True", ["False"]),
        ("min(a, b)", ["max(a, b)"]),
        ("b if a else c", ["b if not a else c"]),
        ("b if a is c else d", ["b if a is not c else d"]),
        ("[a for a in b if a]", ["[a for a in b if not a]"]),
        ("while a:\n    pass", ["while not a:\n    pass"]),
        ("a: Literal[1] = b", []),
        ("raise Error(f'{a + 1}')", []),
        ("'text'", []),
    ],
)
def test_what_is_changed(source: str, changed: list[str]) -> None:
    assert [ast.unparse(mutant.tree) for mutant in mutants(source)] == changed


def test_equal_changes_of_equal_lines_are_numbered() -> None:
    made = [(mutant.line, mutant.nth) for mutant in mutants("a = b + c\nd = e\na = b + c")]
    assert made == [(1, 0), (3, 1)]


def test_a_verdict_stands_for_the_same_code_and_a_survivors_for_the_same_tests(
    tmp_path: Path,
) -> None:
    survivor, killed = mutants("7")
    path = tmp_path / ".cache" / "mutants.jsonl"
    for mutant, result in ((survivor, "survived"), (killed, "killed")):
        verdict = Verdict(result=result, by=None, seconds=1.0)
        Results(path).add(mutant, verdict, code="c", tests="t", file="f.py")

    def result(mutant: object, code: str, tests: str) -> str | None:
        verdict = Results(path).get(mutant, code=code, tests=tests)  # type: ignore[arg-type]
        return None if verdict is None else verdict.result

    assert [result(survivor, "c", tests) for tests in ("t", "more")] == ["survived", None]
    assert [result(killed, "c", tests) for tests in ("t", "more")] == ["killed", "killed"]
    assert [result(mutant, "other", "t") for mutant in (survivor, killed)] == [None, None]


def test_every_equivalent_names_a_mutant_and_says_why() -> None:
    listed = read_equivalents(ROOT / "tools/mutants/equivalent.yaml")
    assert stale(ROOT, listed) == []
    assert [entry for entry in listed if len(entry.reason) < 15] == []


def test_no_file_of_the_mutated_folders_is_forgotten() -> None:
    listed = select(ROOT, ROOMS, [])
    folders = ("densekit/batching", "densekit/text", "densekit/text/templates")
    files = {str(file.relative_to(ROOT)) for name in folders for file in (ROOT / name).glob("*.py")}
    assert {file for file in files - set(listed) if "__init__" not in file} == set()


def test_an_unknown_file_is_a_wrong_command() -> None:
    with pytest.raises(SystemExit, match="2"):
        select(ROOT, ROOMS, ["densekit/nothing.py"])


TINY = "def larger(a, b):\n    return a if a > b else b\n"
TEST = """
import pytest
from tiny import larger

pytestmark = pytest.mark.unit

def test_larger():
    assert larger(2, 1) == 2
"""


@pytest.mark.ranks
def test_one_mutant_is_killed_and_one_survives_until_it_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "test_tiny.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = unit: quick\n")

    def run() -> tuple[int, str]:
        code = main([], root=tmp_path, rooms={"tiny.py": ("test_tiny.py",)})
        return code, capsys.readouterr().out

    code, said = run()
    assert code == 1 and "1 quick tests" in said
    assert "a > b -> a >= b" in said
    assert "tiny.py: 2 mutants, 1 killed, 0 timeout, 1 survived, 0 equivalent" in said
    lines = (tmp_path / ".cache/mutants.jsonl").read_text().splitlines()
    assert {json.loads(line)["verdict"]["by"] for line in lines} == {
        "test_tiny.py::test_larger",
        None,
    }

    code, said = run()  # from what is kept
    assert code == 1 and "quick tests" not in said

    entry = {
        "file": "tiny.py",
        "text": "return a if a > b else b",
        "change": "a > b -> a >= b",
        "reason": "of two equal numbers either is the larger",
    }
    listed = tmp_path / "tools/mutants/equivalent.yaml"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([entry]))
    code, said = run()
    assert code == 0 and "1 killed, 0 timeout, 0 survived, 1 equivalent" in said

    listed.write_text(json.dumps([{**entry, "change": "a > b -> a < b"}]))
    code, said = run()
    assert code == 1 and "names a mutant that is not made" in said
