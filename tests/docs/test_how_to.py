"""Each how-to page is followed to the letter, in a copy of the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "how-to"
SOURCE_FILES = {
    "connector": 2,
    "variant": 2,
    "template": 1,
    "gpu": 1,
    "launcher": 2,
    "dataset": 1,
    "benchmark": 2,
}
"""Pages that add a part, and how many source files each may touch."""
NOT_FOLLOWED = {"air-gapped", "serve", "trajectory", "video"}
"""The first takes two machines, one with the hub; tests/data/fetch follows its `--from`. The second
adds no part; tests/docs/test_serve.py follows it. The third takes GPUs and a published file;
tests/cli/test_trajectory.py has its commands. The last takes a trained model and a video;
tests/chat/test_commands.py has its command.
"""
COPIED = ("densekit", "recipes")
BLOCK = re.compile(r"^```(\w+)[ ]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block with what its first line says about it.

    `new=FILE` writes the file; `edit=FILE after="TEXT"` inserts behind the one line that ends in
    TEXT; `append=FILE` adds to its end; `given=FILE` is a file that the commands read; `check` is a
    list of commands that must succeed.
    """

    kind: str
    file: str
    after: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page that are more than an illustration."""
    for _, words, text in BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
        options = dict(word.partition("=")[::2] for word in shlex.split(words))
        for kind in ("new", "edit", "append", "given", "check"):
            if kind in options:
                yield Block(kind, options[kind], options.get("after", ""), text)


def apply(block: Block, copy: Path) -> None:
    """Do to the copy what a block says."""
    path = copy / block.file
    if block.kind == "new":
        assert not path.exists(), f"{block.file} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    if block.kind == "append":
        path.write_text(f"{text}\n{block.text}", encoding="utf-8")
        return
    lines = text.splitlines(keepends=True)
    found = [number for number, line in enumerate(lines, 1) if line.rstrip().endswith(block.after)]
    assert len(found) == 1, f"{block.file} has {len(found)} lines that end in {block.after!r}"
    path.write_text("".join([*lines[: found[0]], block.text, *lines[found[0] :]]), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    """Every source file, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in COPIED
        for path in (folder / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_page_is_followed() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*SOURCE_FILES, *NOT_FOLLOWED}


@pytest.mark.parametrize("page", SOURCE_FILES)
def test_page_works_as_written_and_touches_only_its_files(page: str, tmp_path: Path) -> None:
    copy = tmp_path / "densekit"
    for part in COPIED:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(copy)
    found = list(blocks(page))
    steps = [block for block in found if block.kind not in ("given", "check")]
    for block in steps:
        apply(block, copy)
    after = contents(copy)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {block.file for block in steps}
    assert len(changed) <= SOURCE_FILES[page]
    if python := [copy / name for name in changed if name.endswith(".py")]:
        ruff = ["-m", "ruff", "check", "--config", ROOT / "pyproject.toml"]
        subprocess.run([sys.executable, *ruff, *python], check=True)
    checks = [line for block in found if block.kind == "check" for line in block.text.splitlines()]
    assert checks, "the page checks nothing"
    work = tmp_path / "work"
    work.mkdir()
    for block in found:
        if block.kind == "given":
            (work / block.file).write_text(block.text, encoding="utf-8")
    for line in checks:
        program, *arguments = shlex.split(line)
        assert program == "densekit", line
        done = subprocess.run(
            [sys.executable, "-m", "densekit", *arguments],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
