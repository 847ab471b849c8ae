"""The tutorials are followed as they are written, but for what needs hardware; and every command of
every page is one that the command line accepts.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from densekit.cli.app import app
from tests.support.paths import ROOT
from tests.support.workplace import SMALL

TUTORIALS = ROOT / "docs" / "tutorials"
LISTED = ROOT / "docs" / "testing.md"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w+)[ ]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```(?:sh|shell|console)?(?: [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SLOW = {"first-run", "own-connector", "own-data", "reviewer"}
"""They train."""
TIMEOUT_S = 2000
"""Of one command: within the test's own limit, so that a busy machine does not end a training."""
CODES = {"densekit diff": (0, 1), "densekit doctor": (0, 1)}
"""Exit codes that are an answer: runs that diverge, a host without GPUs."""


def blocks(page: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """(language, what its first line says, text) of every fenced block of a tutorial."""
    for language, words, text in BLOCK.findall((TUTORIALS / f"{page}.md").read_text("utf-8")):
        yield language, dict(word.partition("=")[::2] for word in shlex.split(words)), text


def names() -> list[str]:
    """The tutorials."""
    return sorted(path.stem for path in TUTORIALS.glob("*.md"))


def follow(page: str, folder: Path) -> None:
    """Do what a tutorial says, in an empty folder. Models and data of the tiny recipes are made
    smaller than they say, which takes a minute less and changes no command.
    """
    for _, options, text in blocks(page):
        if file := options.get("given"):
            (folder / file).write_text(text, encoding="utf-8")
        if "check" not in options:
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program in ("densekit", "python"), line
            command = [*(["-m", "densekit"] if program == "densekit" else []), *arguments]
            if arguments[:1] == ["run"] and makes_its_own(folder, line):
                values = (*SMALL, "data.samples=null")
                command += [word for value in values for word in ("--set", value)]
            done = subprocess.run(
                [sys.executable, *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            codes = CODES.get(" ".join(line.split()[:2]), (0,))
            assert done.returncode in codes, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def makes_its_own(folder: Path, line: str) -> bool:
    """Whether a command names a recipe whose data and models the kit makes."""
    own = (folder / word for word in line.split() if word.endswith(".yaml"))
    texts = [path.read_text(encoding="utf-8") for path in own if path.is_file()]
    return "tiny_" in line or any("tiny_" in text and "assets: null" not in text for text in texts)


@pytest.mark.ranks
@pytest.mark.timeout(2400)  # several trainings, one after the other
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [], id=page)
        for page in names()
    ],
)
def test_the_tutorial_works_as_written(page: str, tmp_path: Path) -> None:
    follow(page, tmp_path)


def test_every_command_is_followed_or_needs_hardware_and_is_listed() -> None:
    needing = {}
    for page in names():
        for language, options, text in blocks(page):
            if language == "sh":
                assert ("check" in options) != ("hardware" in options), f"{page}: {text}"
                if "hardware" in options:
                    needing |= dict.fromkeys(text.splitlines(), options["hardware"])
    listed = LISTED.read_text(encoding="utf-8").partition("## Commands that no test runs")[2]
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|$", listed, re.MULTILINE))
    assert rows == needing


def commands(text: str) -> Iterator[list[str]]:
    """The words behind `densekit` of every command in the shell blocks of a page; of a command with
    a text of several lines, which no line ends, none.
    """
    for block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:
                continue
            for is_end, part in itertools.groupby(words, lambda word: set(word) <= set("();<>|&")):
                if not is_end:
                    yield from _of_densekit(list(part))


def _of_densekit(words: list[str]) -> Iterator[list[str]]:
    """A simple command, if it is one of densekit's and nothing of it is left out."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words and words[0] in ("densekit", ".venv/bin/densekit") and "..." not in words:
        yield words[1:]


def refused(words: list[str]) -> str | None:
    """Why the command line would not take a command; None if it would. Nothing is run."""
    command: Any = typer.main.get_command(app)
    context = None
    try:
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        context = command.make_context("densekit", list(words))
    except TyperException as error:
        return error.format_message()
    except typer.Exit:
        return None  # --help
    finally:
        if context is not None:
            context.close()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_of_a_page_is_accepted(page: Path) -> None:
    found = [
        f"densekit {shlex.join(words)}: {why}"
        for words in commands(page.read_text(encoding="utf-8"))
        if (why := refused(words))
    ]
    assert not found, "\n".join(found)


def test_a_slip_in_a_command_is_found() -> None:
    text = "```sh\ndensekit plan --attic\ndensekit show # no name\n.venv/bin/densekit ls\n```\n"
    assert [bool(refused(words)) for words in commands(text)] == [True, True, False]
