"""`--help` of every command: short, in groups, with an example that works; and shell completion."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from densekit.cli.app import app
from tests.support.command_line import Cli

# What a person uses: everything else stands in a panel of its own.
MAIN_OPTIONS = [
    "--gpus",
    "--gpu",
    "--nodes",
    "--launcher",
    "--print",
    "--set",
    "--force",
    "--micro-batch",
    "--zero-stage",
    "--offload",
    "--runs-dir",
    "--fetch",
    "--help",
]


def all_commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(`containers lock`, its command) of every command, hidden ones too."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(all_commands())


def panels(text: str) -> dict[str, list[str]]:
    """Title of each panel of a help text -> its lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("╭─"):
            lines = found[line.strip("╭─╮ ")] = []
        elif line.startswith("│"):
            lines.append(line.strip("│ "))
    return found


def test_every_command_is_in_a_named_group(run_cli: Cli) -> None:
    groups = panels(run_cli("--help").out)
    assert list(groups) == [
        "Options",
        "Recipes",
        "Data and models",
        "Train",
        "Runs",
        "Evidence",
        "This machine",
    ]
    listed = {
        line.split()[0] for name, lines in groups.items() if name != "Options" for line in lines
    }
    assert listed == {words.split()[0] for words in COMMANDS} - {
        "answer",
        "attempt",
        "convert-folder",
        "exchange",
        "inspect",
        "measure",
        "talk",
    }


@pytest.mark.parametrize("words", ["", "containers", *COMMANDS])
def test_h_is_help(run_cli: Cli, words: str) -> None:
    short = run_cli(*words.split(), "-h")
    assert short.code == 0 and short.err == "" and "Usage: densekit" in short.out
    assert short == run_cli(*words.split(), "--help")


@pytest.mark.parametrize("words", COMMANDS)
def test_help_ends_with_an_example_that_parses(run_cli: Cli, words: str) -> None:
    last = run_cli(*words.split(), "-h").out.rstrip().splitlines()[-1].strip()
    assert last.startswith(f"Example: densekit {words}")
    arguments = shlex.split(last)[2 + len(words.split()) :]
    COMMANDS[words].make_context(words, arguments)  # raises for what the command does not take


def test_help_of_run_fits_a_screen(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert len(run_cli("run", "--help").out.splitlines()) <= 60


def test_help_of_run_shows_what_a_person_uses_first(run_cli: Cli) -> None:
    shown = panels(run_cli("run", "--help").out)
    assert [line.split()[0] for line in shown["Options"]] == MAIN_OPTIONS
    assert len(shown["Advanced"]) <= 11


@pytest.mark.parametrize("words", COMMANDS)
def test_no_option_is_broken_at_80_columns(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run_cli(*words.split(), "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    shown = set(text.split())
    hidden = {"--no-offload", "--no-activation-checkpointing"}
    for parameter in COMMANDS[words].params:
        assert (
            parameter.opts[0] in hidden
            or parameter.opts[-1] in shown | {"extra", "repos"}
            or (not parameter.opts[0].startswith("-"))
        )


def test_hidden_flags_are_accepted(run_cli: Cli) -> None:
    for flag in ("--no-offload", "--no-activation-checkpointing"):
        assert run_cli("plan", "tiny_stage1", flag).code == 0
    result = run_cli("plan", "tiny_stage1", "--offload", "--no-offload")
    assert result == (2, "", "densekit: --offload --no-offload: give one of the two\n")


def complete(words: str, folder: Path) -> list[str]:
    """What bash would offer for the last word."""
    env = {
        **os.environ,
        "_DENSEKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": f"densekit {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    result = subprocess.run(
        [sys.executable, "-m", "densekit"],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        cwd=folder,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.ranks
def test_shells_complete_verbs_options_recipes_and_runs(tmp_path: Path) -> None:
    assert complete("pl", tmp_path) == ["plan"]
    assert complete("run --zero", tmp_path) == ["--zero-stage"]
    assert complete("plan tiny_stage1 --gpu a100-4", tmp_path) == ["a100-40g"]
    assert complete("show tiny_stage", tmp_path) == [
        "tiny_stage1",
        "tiny_stage2",
        "tiny_stage2_lora",
    ]
    assert complete("tail t", tmp_path) == []
    run = tmp_path / "elsewhere" / "tiny_stage1-0123456789"
    run.mkdir(parents=True)
    (run / "math.json").write_text("{}", encoding="utf-8")
    (tmp_path / "densekit.yaml").write_text("runs_dir: elsewhere\n", encoding="utf-8")
    assert complete("tail t", tmp_path) == [run.name]
    (tmp_path / "densekit.yaml").write_text("seed: 1\n", encoding="utf-8")
    assert complete("tail t", tmp_path) == []


def test_completion_can_be_installed(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "--install-completion" in run_cli("--help").out
