"""The commands of README and of the pages that are no tutorial: those that need nothing but the
command line and some runs are run; of the others docs/testing.md says what they need.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from densekit.cli.site import FILE_VARIABLE, variable
from densekit.spec.site import Site
from tests.docs.test_how_to import SOURCE_FILES
from tests.docs.test_tutorials import LISTED, PAGES, commands
from tests.evaluate.scored_runs import drawn, evaluated, made_run
from tests.support.command_line import Cli, caller
from tests.support.launching import entry
from tests.support.paths import ROOT
from tests.support.workplace import Workplace

FOLLOWED = {"docs/tutorials": None, "docs/how-to": SOURCE_FILES}
"""Folders of pages whose commands other tests run; None: all of them."""
ALONE = ("recipes", "show", "schema", "lint", "new", "site", "power", "doctor")
"""Verbs that need nothing."""
OF_RUNS = ("ls", "tail", "report", "curves", "dossier", "diff", "verify", "verdict", "compare")
"""Verbs that look at runs."""
SPECIAL = ("--measure", "--certify")
"""Options of `plan` with which it needs more than a recipe."""
CODES = {"diff": (1,), "doctor": (1,)}
"""Exit codes that are an answer: the two runs do diverge, and much is missing here."""
DCI, NONE = "vicuna7b_clip_stage2", "vicuna7b_clip_none_stage2"


def page_commands() -> dict[str, list[str]]:
    """The words of every command, by how it is listed, in the order of the pages."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        folder = page.parent.relative_to(ROOT).as_posix()
        followed = FOLLOWED.get(folder, {})
        if followed is None or page.stem in followed:
            continue
        for words in commands(page.read_text(encoding="utf-8")):
            found.setdefault(f"densekit {shlex.join(words)}", words)
    return found


def is_run(words: list[str]) -> bool:
    """Whether a command is run here."""
    verb = words[0]
    if verb == "plan":
        return not {*SPECIAL} & {*words}
    if verb == "calibrate":
        return len(words) == 1
    if verb in ("run", "containers"):
        return "--print" in words
    return verb in (*ALONE, *OF_RUNS)


def kind_of(words: list[str]) -> str:
    """The command without its arguments, as the list has it."""
    option = next((word for word in words if word in SPECIAL), "")
    length = 2 if words[0] in ("data", "containers") else 1
    return " ".join(filter(None, ["densekit", *words[:length], option]))


def test_what_is_not_run_is_listed_with_what_it_needs() -> None:
    text = LISTED.read_text(encoding="utf-8").partition("## Commands of other pages")[2]
    rows = re.findall(r"^\| `(densekit [^`]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    rest = {kind_of(words) for words in page_commands().values() if not is_run(words)}
    assert {command for command, _, _ in rows} == rest
    for command, needs, test in rows:
        assert needs
        path = re.fullmatch(r"`(make [\w-]+)`|(tests/[\w/]+\.py)", test)
        assert path is not None, command
        if path[2]:
            assert (ROOT / path[2]).is_file(), path[2]
        else:
            target = f"\n{path[1].removeprefix('make ')}:"
            assert target in (ROOT / "Makefile").read_text(encoding="utf-8"), path[1]


@pytest.fixture
def folder(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trained tiny runs, runs of the paper that were only scored, and the files that pages name."""
    monkeypatch.chdir(tmp_path)
    for name in (FILE_VARIABLE, *map(variable, Site.model_fields)):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(workplace.root / "runs", "runs")
    for recipe, share in ((DCI, 0.72), (NONE, 0.60)):
        for seed in range(2):
            evaluated(made_run(tmp_path / "runs", recipe, seed=seed), drawn(share, seed=seed))
    Path("my_recipes").mkdir()
    text = "extends: tiny_stage1\noptimizer: {epochs: 2}\n"
    Path("my_recipes/mine.yaml").write_text(text, encoding="utf-8")
    Path("images").mkdir()
    Image.new("RGB", (4, 4)).save("images/a.png")
    for name in ("captions", "chat"):
        Path(f"{name}.json").write_text(json.dumps([entry()] * 20), encoding="utf-8")
    return tmp_path


@pytest.mark.ranks
def test_the_others_work_as_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli: Cli = caller(monkeypatch, capsys)
    scored = [path.name for path in sorted((folder / "runs").glob(f"{DCI}-*"))]
    others = [path.name for path in sorted((folder / "runs").glob(f"{NONE}-*"))]
    stand_for = {"RUN": "tiny_stage2", "RUN_A": "tiny_stage2", "RUN_B": "tiny_stage2_lora"}
    of_verdict = {"RUN_A": scored[0], "RUN_B": scored[1], "RUN_C,RUN_D": ",".join(others)}
    wrong = []
    for line, words in page_commands().items():
        if is_run(words):
            for made in folder.glob("my_stage*"):
                made.unlink()  # of `new` on another page
            names = of_verdict if words[0] in ("verdict", "compare") else stand_for
            found = run_cli(*(names.get(word, word) for word in words))
            if found.code not in CODES.get(words[0], (0,)) or not found.out:
                wrong.append(f"{line}: exit code {found.code}\n{found.err}")
    assert not wrong, "\n".join(wrong)
