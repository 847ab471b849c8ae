"""`make unchanged`: what the comparison sees, what may be declared, a changed learning rate."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.unchanged.cache import code_of
from tools.unchanged.checkouts import Failed, Side, snapshot
from tools.unchanged.compare import Declaration, compare, read_declarations
from tools.unchanged.items import all_items, select

ROOT = Path(__file__).resolve().parent.parent
BASE = {"steps": 4, "notes": ["4 steps on 2 GPUs"], "exit": 0, "list": [1, 2]}


def differences(base: Any, tree: Any, *declared: Declaration) -> list[str]:
    return [found.path for found in compare("plan/cpu", base, tree, list(declared))]


def declaration(kind: str, where: str = "plan/*", **values: Any) -> Declaration:
    return Declaration(where=where, kind=kind, reason="a test", **values)


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({}, []),
        ({"steps": 5}, ["plan/cpu/steps"]),
        ({"steps": 4.0}, ["plan/cpu/steps"]),  # another type is another value
        ({"exit": False}, ["plan/cpu/exit"]),
        ({"list": [1, 2, 3]}, ["plan/cpu/list/2"]),
        ({"list": [1]}, ["plan/cpu/list/1"]),
        ({"list": None, "more": 1}, ["plan/cpu/list", "plan/cpu/more"]),
    ],
)
def test_any_change_is_a_difference(change: dict[str, Any], paths: list[str]) -> None:
    assert differences(BASE, {**BASE, **change}) == paths


def test_merged_texts_are_one_text_in_the_place_of_the_first() -> None:
    merged = declaration("merged_texts", "plan/cpu/notes", old=["a: x", "b: x"], new="a, b: x")
    base = {"notes": ["1", "a: x", "b: x", "2"]}
    assert differences(base, {"notes": ["1", "a, b: x", "2"]}, merged) == []
    assert merged.acted == 1
    assert differences(base, {"notes": ["1", "a, b: x"]}, merged) == ["plan/cpu/notes/2"]
    assert differences(base, {"notes": ["1", "a, b: x", "2"]}) != []
    assert differences({"notes": ["a: x"]}, {"notes": ["a, b: x"]}, merged) != []


def test_a_key_that_is_gone_is_a_difference() -> None:
    assert differences(BASE, {"steps": 4}) == [
        "plan/cpu/notes",
        "plan/cpu/exit",
        "plan/cpu/list",
    ]


def test_a_renamed_key_is_followed_and_its_value_compared() -> None:
    renamed = declaration("renamed_key", "plan/cpu", old="steps", new="updates")
    rest = {key: value for key, value in BASE.items() if key != "steps"}
    assert differences(BASE, {"updates": 4, **rest}, renamed) == []
    assert renamed.acted == 1
    assert differences(BASE, {"updates": 5, **rest}, renamed) == ["plan/cpu/updates"]
    assert differences(BASE, BASE, renamed) == [] and renamed.acted == 2
    elsewhere = declaration("renamed_key", "show/*", old="steps", new="updates")
    assert len(differences(BASE, {"updates": 4, **rest}, elsewhere)) == 2


def test_dropped_and_added_keys() -> None:
    dropped = declaration("dropped_key", "plan/cpu", old="exit")
    added = declaration("added_key", "plan/cpu", new="rows")
    tree = {key: value for key, value in BASE.items() if key != "exit"} | {"rows": 1}
    assert differences(BASE, tree, dropped, added) == []
    assert (dropped.acted, added.acted) == (1, 1)
    assert differences(BASE, {**BASE, "exit": 1}, dropped) == ["plan/cpu/exit"]


@pytest.mark.parametrize(
    ("notes", "same"),
    [
        (["on 2 GPUs, 4 updates"], True),
        (["on 2 GPUs, 5 updates"], False),
        (["on 2 GPUs, 4 updates of 4"], False),
        (["on 2 GPUs", "4 updates"], False),
    ],
)
def test_wording_may_change_but_no_number_and_no_count(notes: list[str], same: bool) -> None:
    wording = declaration("wording", "plan/*/notes")
    assert (differences(BASE, {**BASE, "notes": notes}, wording) == []) is same
    assert wording.acted == same


@pytest.mark.parametrize(
    ("script", "same"),
    [
        (["# stop at a checkpoint", "if a && b; then", "  touch stop  # asks", "fi"], True),
        (["if a \\", "    && b; then", "touch stop", "", "fi"], True),
        (["#SBATCH --nodes=2", "if a && b; then", "touch stop", "fi"], False),
        (["if a; then", "touch stop", "fi"], False),
        (["if a && b; then", "touch stop; rm run", "fi"], False),
    ],
)
def test_comments_and_line_breaks_of_scripts_may_change_but_no_command(
    script: list[str], same: bool
) -> None:
    base = {"stdout": ["# the end", "if a && b; then", "    touch halt", "fi"]}
    commands = declaration("commands", "plan/*/stdout")
    message = declaration("changed_message", "plan/*/stdout", old="touch halt", new="touch stop")
    assert (differences(base, {"stdout": script}, commands, message) == []) is same


def test_a_hash_whose_rule_changed_is_declared_as_one() -> None:
    rehashed = declaration("rehashed", "plan/*/chain")
    base, tree = {"chain": "a" * 64}, {"chain": "b" * 64}
    assert differences(base, tree) == ["plan/cpu/chain"]
    assert differences(base, tree, rehashed) == [] and rehashed.acted == 1
    for other in ("", "b" * 63, None, 7):
        assert differences(base, {"chain": other}, rehashed) == ["plan/cpu/chain"]


def test_a_changed_message_is_exact() -> None:
    message = declaration("changed_message", "plan/*", old="steps", new="updates")
    assert differences(BASE, {**BASE, "notes": ["4 updates on 2 GPUs"]}, message) == []
    assert differences(BASE, {**BASE, "notes": ["4 updates on 3 GPUs"]}, message)
    schema = declaration("changed_message", "plan/*/steps", old=4, new=5)
    assert differences(BASE, {**BASE, "steps": 5}, schema) == []
    assert differences(BASE, {**BASE, "steps": 6}, schema) == ["plan/cpu/steps"]


@pytest.mark.parametrize(
    "entry",
    [
        "{where: a, kind: renamed, reason: r}",
        "{where: a, kind: renamed_key, old: b, reason: r}",
        "{where: a, kind: wording}",
        "{where: a, kind: wording, reason: r, path: b}",
    ],
)
def test_a_declaration_that_is_not_understood_is_refused(tmp_path: Path, entry: str) -> None:
    (tmp_path / "expected.yaml").write_text(f"- {entry}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected\.yaml"):
        read_declarations(tmp_path / "expected.yaml")


def test_the_declarations_of_this_repository_are_understood() -> None:
    read_declarations(ROOT / "tools" / "unchanged_expected.yaml")


def test_items_are_selected_by_name_group_and_pattern() -> None:
    assert [item.name for item in select(["runs/ddp-1", "print"])] == [
        "print/local",
        "print/slurm",
        "runs/ddp-1",
    ]
    assert len(select(["runs/*-2"])) == 3 and select([]) != []
    assert len({item.name for item in all_items()}) == len(all_items())
    with pytest.raises(ValueError, match="no item weights"):
        select(["weights"])


@pytest.mark.ranks
def test_a_process_that_imports_another_densekit_is_noticed(tmp_path: Path) -> None:
    """Without a package in the checkout the installed one is imported."""
    side = Side("tree", tmp_path)
    side.checkout.mkdir()
    with pytest.raises(Failed, match="imported from elsewhere"):
        side.imported_from()


def test_comments_of_the_list_keep_results() -> None:
    code = '"""A list."""\n\n\ndef f():\n    """It."""  # why\n    return 1\n'
    assert code_of(code) == code_of("def f():\n    return (1)") != code_of("def f():\n    return 2")


def unchanged(tmp_path: Path, tree: Path, item: str) -> tuple[int, dict[str, Any]]:
    """Exit code and outcome of the working tree as the base, against `tree`."""
    output = tmp_path / "outcome.json"
    options = ["--tree", str(tree), "--output", str(output), "--only", item]
    command = [sys.executable, "-m", "tools.unchanged", str(ROOT), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert output.is_file(), done.stderr
    (judged,) = json.loads(output.read_text(encoding="utf-8"))["items"]
    assert judged["failures"] == [], done.stderr
    return done.returncode, judged


@pytest.fixture
def faster(tmp_path: Path) -> Path:
    """A copy of the working tree with another learning rate of stage 1."""
    copy = tmp_path / "copy"
    copy.mkdir()
    snapshot(ROOT, copy)
    recipe = copy / "recipes" / "tiny_stage1.yaml"
    text = recipe.read_text(encoding="utf-8")
    assert "learning_rate: 2.0e-3" in text
    recipe.write_text(text.replace("2.0e-3", "2.001e-3"), encoding="utf-8")
    return copy


@pytest.mark.ranks
@pytest.mark.slow
def test_a_changed_learning_rate_is_shown(tmp_path: Path, faster: Path) -> None:
    assert unchanged(tmp_path, ROOT, "show")[0] == 0
    code, judged = unchanged(tmp_path, faster, "show")
    assert code == 1 and not judged["same"]
    found = {"base": 0.002, "tree": 0.002001}
    path = "show/tiny_stage1/stdout/optimizer/learning_rate"
    assert judged["differences"] == [{"path": path, **found}]


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_changed_learning_rate_changes_a_training_run(tmp_path: Path, faster: Path) -> None:
    assert unchanged(tmp_path, ROOT, "runs/ddp-1")[0] == 0
    code, judged = unchanged(tmp_path, faster, "runs/ddp-1")
    assert code == 1
    paths = {difference["path"] for difference in judged["differences"]}
    files = "runs/ddp-1/tiny_stage1/files"
    assert f"{files}/math.json/recipe/optimizer/learning_rate" in paths
    assert f"{files}/connector.safetensors/sha256" in paths
    assert f"{files}/certificate.json/sha256" not in paths  # what is fed is the same
