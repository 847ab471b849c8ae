"""What the documentation names exists: files, tests, verbs, anchors; and its lines stay short."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

from densekit.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
TOP = [name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md") if (ROOT / name).exists()]
PAGES = sorted([ROOT / name for name in TOP] + list((ROOT / "docs").rglob("*.md")))
MAX_WIDTH = 100
MADE_BY_COMMANDS = {"docker/images.lock.json"}
"""Files that a page names and a fresh checkout does not have."""

FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
CODE = re.compile(r"`([^`\n]+)`")
VERB = re.compile(r"\bdensekit ([a-z]+)(?: ([a-z]+))?(?![\w/.-])")
# A path from the top of the repository, or from the package. `NAME`, `*` and `<...>` stand for any.
TOP_FOLDERS = "(?:densekit|docs|tests|recipes|docker|examples|benchmarks|tools|requirements|\\.ci)"
FROM_TOP = re.compile(rf"(?<![\w/.-]){TOP_FOLDERS}/[\w./-]*\w/?(?![\w<*{{./-])")
PAGE = re.compile(r"(?<![\w/])docs/[a-z/-]+\.md")
SOURCE_NAMES = {"Makefile", "Dockerfile", "README", "compose.yaml"}
SOURCE_SUFFIXES = {".py", ".yaml", ".sh"}
IN_PACKAGE = re.compile(r"[a-z_]+(?:/[a-z_]+)*\.(?:py|yaml)")


def pages(*, code: bool = True) -> Iterator[tuple[str, str]]:
    """Name and text of every page; without the blocks of code if `code` is False."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(ROOT)), text if code else FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(name: str, text: str) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    found = []
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = ((ROOT / name).parent / file) if file else ROOT / name
        if not path.exists():
            found.append(f"{name}: no {target}")
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            found.append(f"{name}: {target} has no such heading")
    return found


@cache
def functions(file: str) -> set[str]:
    """Names of the functions of a Python file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def missing_tests(name: str, text: str) -> list[str]:
    """Tests that a page cites and that do not exist."""
    return [
        f"{name}: no {file}" + (f"::{function}" if function else "")
        for file, function in TEST.findall(text)
        if not (ROOT / file).is_file() or (function and function not in functions(file))
    ]


def missing_files(name: str, text: str) -> list[str]:
    """Files of the repository that a page cites between backticks and that do not exist."""
    found = []
    for code in CODE.findall(FENCE.sub("", text)):
        if "/" in code and IN_PACKAGE.fullmatch(code):
            found += [] if in_package(code) else [f"{name}: no {code}"]
        else:
            named = FROM_TOP.findall(code.partition("::")[0])
            found += [f"{name}: no {path}" for path in named if not exists(path)]
    return found


def exists(path: str) -> bool:
    """Whether a path from the top leads to a file, or to one that a command makes."""
    return (ROOT / path).exists() or path in MADE_BY_COMMANDS


def in_package(path: str) -> bool:
    """Whether a path leads to a file from the top, from densekit/ or from the recipes."""
    return any((start / path).exists() for start in (ROOT, ROOT / "densekit", ROOT / "recipes"))


def missing_pages(name: str, text: str) -> list[str]:
    """Pages of docs/ that a file names and that do not exist."""
    return [f"{name}: no {page}" for page in PAGE.findall(text) if not (ROOT / page).is_file()]


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of every file that may refer to a page."""
    folders = ("densekit", "tests", "recipes", "docker", "examples", "benchmarks", "tools")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in [ROOT / "Makefile", ROOT / "compose.yaml", *sorted(found)]:
        if path.name in SOURCE_NAMES or path.suffix in SOURCE_SUFFIXES:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def unknown_verbs(name: str, text: str) -> list[str]:
    """Verbs of `densekit` that a page names and that the command line does not have."""
    commands: dict[str, object] = vars(typer.main.get_command(app))["commands"]
    shown = [*CODE.findall(FENCE.sub("", text)), *FENCE.findall(text)]
    found = []
    for verb, second in VERB.findall("\n".join(shown)):
        group = getattr(commands.get(verb), "commands", None)
        if verb not in commands or (second and group and second not in group):
            found.append(f"{name}: densekit {verb} {second}".rstrip())
    return found


def long_lines(name: str, text: str) -> list[str]:
    """Lines of prose that are too long; tables are no prose, and a link cannot be broken."""
    prose = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text).splitlines()
    return [
        f"{name}:{number}: {len(line)} characters"
        for number, line in enumerate(prose, start=1)
        if len(line) > MAX_WIDTH and not line.startswith("|") and " " in line.strip()
    ]


def test_links_lead_to_files_and_headings() -> None:
    assert not [found for page in pages() for found in broken_links(*page)]


def test_cited_tests_exist() -> None:
    assert not [found for page in pages() for found in missing_tests(*page)]


def test_cited_files_exist() -> None:
    assert not [found for page in pages(code=False) for found in missing_files(*page)]


def test_pages_cited_by_the_code_exist() -> None:
    here = str(Path(__file__).relative_to(ROOT))
    assert not [found for file in sources() if file[0] != here for found in missing_pages(*file)]


def test_named_verbs_exist() -> None:
    assert not [found for page in pages() for found in unknown_verbs(*page)]


def test_lines_of_prose_are_short() -> None:
    assert not [found for page in pages() for found in long_lines(*page)]


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (broken_links, "[a page](docs/attic.md)"),
        (broken_links, "[a heading](docs/architecture.md#the-attic)"),
        (missing_tests, "tests/attic/test_attic.py::test_attic"),
        (missing_tests, "tests/test_structure.py::test_attic"),
        (missing_files, "`densekit/attic/dust.py`"),
        (missing_files, "`attic/dust.py`"),
        (missing_pages, "docs/attic.md, section 3"),
        (unknown_verbs, "`densekit attic`"),
        (unknown_verbs, "```sh\n.venv/bin/densekit containers attic cpu\n```"),
        (long_lines, "word " * 21),
    ],
)
def test_each_check_finds_a_mistake(check: Callable[[str, str], list[str]], text: str) -> None:
    assert len(check("README.md", text)) == 1
