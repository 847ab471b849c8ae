"""Paths with signs that end a line of a script, a mount or an option: refused by the launcher that
could not write them down, quoted by the others, in what `--print` shows.
"""

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import Batch, parse_options, piped, script
from densekit.launch.launchers.trainer_command import job_name, passed_on
from densekit.runs.layout import RunDir
from densekit.spec.roots import Roots
from densekit.spec.site import Site
from densekit.spec.types import ContainerRuntime
from tests.support.launching import stub_math, stub_run
from tests.support.paths import ROOT

CONTROL = ["a\nb", "a\rb", "a\tb", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\udcffb"]
QUOTES = ['a"b', "a'b", "a\\b"]
LISTS = ["a,b", "a:b"]
PLAIN = ["a b", "a;b", "a#b", "a$(b)", "a`b`", "a&b", "a%j", "a=b", "-a", "été", "a*b"]


def slurm(runtime: ContainerRuntime) -> Slurm:
    return Slurm(batch=Batch(runtime=runtime, image="x" if runtime != "none" else None))


REFUSED = {
    "docker": (Docker(), CONTROL),
    "slurm": (slurm("none"), CONTROL + QUOTES),
    "pyxis": (slurm("pyxis"), CONTROL + QUOTES + LISTS),
    "apptainer": (slurm("apptainer"), CONTROL + QUOTES + LISTS),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("part", CONTROL + QUOTES + LISTS + PLAIN)
def test_what_a_launcher_cannot_write_down_is_refused(tmp_path: Path, name: str, part: str) -> None:
    launcher, refused = REFUSED[name]
    roots, maths = Roots(cache=tmp_path), [stub_math().recipe]
    for changes in ({"runs_dir": tmp_path / part}, {"roots": Roots(data=tmp_path / part)}):
        paths = {"runs_dir": tmp_path, "roots": roots, "maths": maths, **changes}
        if part not in refused:
            launcher.check_paths(**paths)  # type: ignore[arg-type]
            continue
        option = "--runs-dir" if "runs_dir" in changes else "--data-dir"
        with pytest.raises(UsageError, match=f"^{option} .* cannot take a path with a") as error:
            launcher.check_paths(**paths)  # type: ignore[arg-type]
        assert str(error.value).isprintable(), "the message itself is one line"


def test_a_path_of_the_recipe_and_the_target_of_a_link_are_looked_at(tmp_path: Path) -> None:
    named = [stub_math(language_model=f"{tmp_path}/a\nb").recipe]
    with pytest.raises(UsageError, match=r"mine: models.language_model .*a\\nb: the docker"):
        Docker().check_paths(tmp_path, Roots(), named)
    (tmp_path / "link").symlink_to(tmp_path / "a\nb")
    with pytest.raises(UsageError, match=r"^--cache-dir .*a\\nb"):
        Docker().check_paths(tmp_path, Roots(cache=tmp_path / "link"), [])


def test_the_local_launcher_takes_any_path(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path / "a\n'\",: b", "")
    Local().check_paths(run.path.parent, execution.roots, [run.math.recipe])
    (line,) = Local().commands(run, execution)
    assert shlex.split(line)[-1] == str(run.path)


@pytest.mark.usefixtures("bare_host")
@pytest.mark.parametrize("part", QUOTES + LISTS + PLAIN)
def test_docker_mounts_are_one_field_of_csv_each(tmp_path: Path, part: str) -> None:
    run, execution = stub_run(tmp_path / part, "")
    (line,) = Docker(image="x").commands(run, execution)
    words = shlex.split(line)
    mounts = [words[place + 1] for place, word in enumerate(words) if word == "--mount"]
    fields = [next(csv.reader([mount])) for mount in mounts]
    assert ["type=bind", f"source={run.path}", f"target={run.path}"] in fields
    assert all(len(field) in (3, 4) and set(field[3:]) <= {"readonly"} for field in fields)


@pytest.mark.parametrize("runtime", ["none", "pyxis", "apptainer"])
@pytest.mark.parametrize("part", PLAIN)
def test_batch_script_keeps_a_path_whole(
    tmp_path: Path, part: str, runtime: ContainerRuntime
) -> None:
    run, execution = stub_run(tmp_path / part, "")
    text = script(run, execution, slurm(runtime).batch)
    (output,) = [line for line in text.splitlines() if line.startswith("#SBATCH --output")]
    value = output.partition("=")[2]
    wanted = str(run.attempt).replace("%", "%%")
    assert value in (f"{wanted}/slurm-%j.out", f'"{wanted}/slurm-%j.out"')
    assert (value[0] == '"') == bool(set(value) & set(" #;"))
    (assigned,) = [line for line in text.splitlines() if line.startswith("run=")]
    assert shlex.split(assigned) == [f"run={run.path}"]


@pytest.mark.parametrize(
    "word", ["comment=a\nb", 'comment="x" --wrap=y', "comment=it's", "a;b=c", "comment=a\\b", "A=1"]
)
def test_option_of_sbatch_that_leaves_its_line_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="give a long option of sbatch") as error:
        parse_options([word])
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nodes=5", "`--nodes` and `--gpus` of densekit"),
        ("ntasks=8", "`--nodes` and `--gpus` of densekit"),
        ("ntasks-per-node=2", "one task a node"),
        ("signal=USR1@60", "give B:USR1@SECONDS"),
        ("signal=B:USR2@60", "give B:USR1@SECONDS"),
        ("signal", "give B:USR1@SECONDS"),
    ],
)
def test_option_of_sbatch_that_contradicts_the_script_is_refused(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_options([word])
    taken = parse_options(["signal=B:TERM@900", "nodelist=n[1-3]", "exclusive"])
    assert taken == {"signal": "B:TERM@900", "nodelist": "n[1-3]", "exclusive": None}


@pytest.mark.parametrize("image", ["", "-v/:/x", "--privileged", "a\nb"])
def test_image_that_would_be_an_option_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="give the name of a container image") as error:
        LauncherOptions(image=image).filled(("image",), Site())
    assert str(error.value).isprintable()


@pytest.mark.parametrize("image", ["a b", "../x.sif", "x:latest;rm", "a$b", "x,y"])
def test_docker_takes_no_name_that_no_image_has(image: str) -> None:
    with pytest.raises(UsageError, match=r"--image .*: the docker launcher takes the name"):
        Docker.from_options(LauncherOptions(image=image))
    for good in ("densekit:a100", "localhost:5000/a/b_c@sha256:0f", "sha256:0123abcd", "X/y.z"):
        assert Docker.from_options(LauncherOptions(image=good)).image == good


def test_names_are_of_letters_that_engines_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job_name(RunDir(tmp_path / 'a "b\n-0123456789')) == "densekit-a--b--0123456789"
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("NCCL_X;touch pwned", "1")
    assert "NCCL_DEBUG" in passed_on() and not [name for name in passed_on() if ";" in name]


def test_no_line_of_a_script_ends_what_is_piped_to_sbatch() -> None:
    text = "export NCCL_DEBUG_FILE='a\nEND\ntouch pwned'\n"
    first, *lines, last = piped(text).splitlines()
    assert first == "sbatch <<'END_'" and last == "END_" and "\n".join(lines) + "\n" == text


@pytest.mark.ranks
@pytest.mark.parametrize("value", ["x; touch pwned", "it's", 'a"`touch pwned`', "a & b", "--help"])
def test_make_hands_a_value_on_as_one_word(value: str) -> None:
    done = make("reproduce", f"RECIPE={value}", f"RUNS_DIR={value}")
    assert done.returncode == 0, done.stderr
    command = done.stdout[done.stdout.rindex(".venv/bin/densekit run") :].replace("\\\n", " ")
    words = shlex.split(command)
    assert words == [".venv/bin/densekit", "run", "--runs-dir", value, "--", value]


@pytest.mark.ranks
@pytest.mark.parametrize("value", ["$(shell touch pwned)", "x\ntouch pwned", "$$(touch pwned)"])
def test_make_refuses_what_it_could_not_quote(value: str) -> None:
    done = make("reproduce", f"RECIPE={value}")
    assert done.returncode == 2 and "RECIPE: a value without dollar signs" in done.stderr
    assert not (ROOT / "pwned").exists()


def make(*words: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--dry-run", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
