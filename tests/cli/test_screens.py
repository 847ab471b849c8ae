"""What a person sees of `plan`, `recipes`, `ls`, `doctor`, `verdict`, on terminals of two sizes."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from densekit.cli import host
from densekit.launch import doctor
from densekit.spec.check import Check
from tests.cli.test_plan_screen import height
from tests.evaluate.scored_runs import drawn as answers
from tests.evaluate.scored_runs import evaluated, made_run
from tests.support.command_line import Cli, Result
from tests.support.runs import make_world, train
from tests.support.screens import SIZES, check_screen, check_widths, drawn

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
DCI = "vicuna7b_clip_stage2"


@pytest.fixture
def screen(run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Screen":
    """Runs commands on a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Screen(run_cli, tmp_path, monkeypatch)


class Screen:
    """A terminal on which commands print."""

    def __init__(self, run_cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_cli, self.folder, self.monkeypatch = run_cli, folder, monkeypatch

    def check(self, name: str, size: tuple[int, int], *arguments: object) -> Result:
        """Type a command; what it leaves on the screen is the committed text."""
        for variable, value in zip(("COLUMNS", "LINES"), size, strict=True):
            self.monkeypatch.setenv(variable, str(value))
        self.monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        result = self.run_cli(*arguments)
        check_widths(result.out + result.err, size[0])
        check_screen(name, drawn(result.out + result.err, size), size, self.folder)
        return result


@sizes
def test_plan(screen: Screen, size: tuple[int, int]) -> None:
    planned = screen.check("plan", size, "plan", DCI).out
    assert planned.splitlines()[-1].startswith("\x1b[32mfits\x1b[0m: "), "green, and last"


@sizes
def test_a_plan_that_does_not_fit(
    screen: Screen, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densekit.planner.rules.host_memory", lambda: 24 * 2**30)
    planned = screen.check("plan_no", size, "plan", DCI, "--device", "cpu").out
    assert planned.splitlines()[-1].startswith("\x1b[31mdoes NOT fit\x1b[0m: ")


@sizes
def test_recipes(screen: Screen, size: tuple[int, int]) -> None:
    screen.check("recipes", size, "recipes")


@sizes
def test_ls(screen: Screen, size: tuple[int, int], tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    for recipe, stop_after, loss in (
        ("made", None, 2.0054),
        ("vicuna13b_clip_none_seven_stage2", 2, 2.0972),
    ):
        path = train(world, tmp_path / "runs", recipe={"name": recipe}, stop_after=stop_after)
        last = json.dumps({"step": stop_after or 6, "loss": loss, "seconds": 0.1})
        (path / "metrics.jsonl").write_text(f"{last}\n", encoding="utf-8")
        began = (path / "attempts" / "0001" / "execution.json").stat().st_mtime
        os.utime(path / "metrics.jsonl", (began + 4000, began + 4000))
    listed = screen.check("ls", size, "ls").out
    assert "\x1b[32mcomplete\x1b[0m" in listed and "\x1b[33mpreempted\x1b[0m" in listed


@sizes
def test_doctor(screen: Screen, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the checks of a host that has no GPU, no engine and little disk."""
    found = [
        Check(name="GPUs", state="warn", message="none on this host: train a tiny recipe"),
        Check(
            name="engine",
            state="warn",
            message="no container engine answers (its socket is not there): start one "
            "(`sudo systemctl start docker`), set DOCKER_HOST, or use --launcher local",
        ),
        Check(name="packages", state="ok", message="everything that --launcher local needs"),
        Check(name="disk", state="fail", message="3.1 GiB free, and 333.1 GiB are needed"),
    ]
    monkeypatch.setattr(doctor, "doctor", lambda *_, **__: found)
    assert host.PANEL and screen.check("doctor", size, "doctor").code == 1


@sizes
def test_verdict(screen: Screen, size: tuple[int, int], tmp_path: Path) -> None:
    for seed in range(2):
        evaluated(made_run(tmp_path / "runs", DCI, seed=seed), answers(0.72, seed=seed))
    judged = screen.check("verdict", size, "verdict", DCI).out
    assert height(re.sub(r"\x1b\[\d+m", "", judged)) <= 24
    assert judged.splitlines()[-1].startswith("UNCALIBRATED: 1 UNCALIBRATED, ")
