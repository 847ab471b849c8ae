"""The command line as a program: what it loads, how it ends, what it prints where."""

import errno
import os
import subprocess
import sys

import pytest

import densekit
from densekit.cli import host
from densekit.cli.app import app
from tests.support.command_line import Cli

HEAVY = {"torch", "transformers", "accelerate", "peft", "deepspeed"}


def start(*arguments: str, options: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
    """The real program in a process of its own."""
    command = [sys.executable, *options, "-m", "densekit", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def densekit_process(
    *arguments: str, options: tuple[str, ...] = (), **env: str
) -> tuple[int, str, str]:
    process = start(*arguments, options=options, **env)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_version(run_cli: Cli) -> None:
    assert run_cli("--version") == (0, f"{densekit.__version__}\n", "")


def test_help_says_where_a_default_is_from_and_flows(run_cli: Cli) -> None:
    def help_of(verb: str) -> str:
        return " ".join(run_cli(verb, "--help").out.replace("\u2502", " ").split())

    assert "or h200 (default: that of the GPUs found; slurm: the paper's)" in help_of("run")
    assert "or h200 (default: the paper's)" in help_of("plan")
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.help and "\n" not in command.help.replace("\n\n", ""), command.name


@pytest.mark.parametrize("verb", ["train", "parity", "selftest"])
def test_missing_packages_are_named(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr("densekit.launch.launchers.trainer_command.find_spec", lambda name: None)
    result = run_cli(verb, *([] if verb == "selftest" else ["x"]))
    assert result.code == 2
    missing = "torch, transformers, accelerate, peft, deepspeed not installed: run `make setup`"
    assert missing in result.err


@pytest.mark.ranks
@pytest.mark.parametrize(
    "words", ["plan vicuna7b_clip_stage2 --why", "diff a b", "verify a", "replay a", "site", "-h"]
)
def test_the_driver_loads_no_heavy_package(words: str) -> None:
    _, _, err = densekit_process(*words.split(), options=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in err.splitlines()}
    assert "densekit" in loaded and not loaded & HEAVY


@pytest.mark.ranks
def test_help_loads_no_recipe_and_no_planner() -> None:
    _, out, err = densekit_process("run", "-h", options=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "--micro-batch" in out and "densekit.cli.train" in loaded
    assert not loaded & {"densekit.planner", "densekit.recipes", "densekit.spec.recipe", "numpy"}


@pytest.mark.ranks
def test_letters_that_the_terminal_lacks_are_escaped() -> None:
    code, out, err = densekit_process(
        "show", "tiny_stage1", "--set", "title=\u00e9t\u00e9", PYTHONIOENCODING="ascii"
    )
    assert (code, err) == (0, "")
    assert "title: \\xe9t\\xe9" in out


@pytest.mark.ranks
def test_a_refusal_of_the_real_program_is_one_line() -> None:
    code, out, err = densekit_process("run", "tiny_stage3")
    assert (code, out) == (2, "")
    assert err.startswith("densekit: no recipe named 'tiny_stage3'; did you mean ")
    assert err.count("\n") == 1


class Interrupts:
    """An importer during which Ctrl-C is pressed."""

    def find_spec(self, name: str, *rest: object) -> None:
        if name == "densekit.cli.app":
            raise KeyboardInterrupt


def test_ctrl_c_while_the_verbs_are_imported(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "densekit.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    assert run_cli("ls") == (130, "", "densekit: interrupted by Ctrl-C\n")


@pytest.mark.ranks
def test_closed_streams_are_no_error() -> None:
    line = f"{sys.executable} -m densekit site >&- 2>&-; echo $?"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_errors_of_the_system_are_one_line(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")

    monkeypatch.setattr(host, "print_table", full)
    assert run_cli("site") == (3, "", "densekit: runs/x: No space left on device\n")


@pytest.mark.ranks
def test_a_reader_that_is_gone_is_no_traceback() -> None:
    process = start("show", "tiny_stage1", "--json")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert (process.wait(timeout=120), process.stderr.read()) == (1, "")
    process.stderr.close()


def test_ctrl_c_ends_quietly(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "print_table", interrupted)
    assert run_cli("site") == (130, "", "")
