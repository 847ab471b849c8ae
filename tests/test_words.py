"""The field's words: phrases that tests/forbidden_phrases.txt lists stand in no text of ours."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if path.name != "glossary.md"  # which gives the old words for readers of older runs
]


def phrases() -> dict[str, str]:
    """Forbidden phrase, in lower case -> what to write."""
    lines = (ROOT / "tests" / "forbidden_phrases.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" -> ") for line in lines if line and not line.startswith("#"))
    return {phrase.strip().lower(): better for phrase, better in pairs}


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string literal of a module, docstrings and help texts among them;
    adjacent pieces and the fixed parts of an f-string are one text.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if " " in node.value:  # a single word is a key
                yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))


def found_in(text: str) -> list[str]:
    """The forbidden phrases of a text, whatever its line breaks and letters."""
    flat = " ".join(text.lower().split())
    return [phrase for phrase in phrases() if f" {phrase}" in f" {flat}"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_the_fields_words(path: Path) -> None:
    assert path.is_file(), f"{path.relative_to(ROOT)} is listed here and is gone"
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"line {number}: {found_in(line)}" for number, line in enumerate(lines, 1)]
    assert not [line for line in found if not line.endswith("[]")]


def test_string_literals_use_the_fields_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}: write {phrases()[phrase]}"
        for path in sorted((ROOT / "densekit").rglob("*.py"))
        for line, text in literals(path)
        for phrase in found_in(text)
    ]
    assert not found, "\n".join(found)


def test_phrase_checker_catches() -> None:
    assert found_in("the optimiser in main\n    memory") == ["main memory", "optimiser"]
    assert found_in("resuming from step 40 of 11 steps") == []


COMMAND = re.compile(r"`densekit [^`]*`", re.DOTALL)
VALUE = re.compile(r"\{([^{}]*)\}")
A_PATH = re.compile(r"\b(path|place|folder|source|file|to|paths\[\d\])$")


def test_a_path_in_a_command_that_is_named_is_a_word_of_a_shell() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {value}"
        for path in sorted((ROOT / "densekit").rglob("*.py"))
        for command in COMMAND.findall(path.read_text(encoding="utf-8"))
        for value in VALUE.findall(command)
        if A_PATH.search(value)
    ]
    assert not found, "a folder with a space: write {shlex.quote(str(...))}\n" + "\n".join(found)
    assert A_PATH.search("run.path") and not A_PATH.search("shlex.quote(str(run.path))")
