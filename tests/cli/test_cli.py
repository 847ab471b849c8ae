"""The command line: what it prints, and that whatever a user gets wrong ends in one message and an
exit code.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import densekit
from densekit import cli
from densekit.errors import DataError
from densekit.launch.launchers import local
from densekit.recipes.load import recipe_names
from densekit.spec.recipe import Recipe
from tests.support.launching import entry, make_pair, names, trainer, write_json
from tests.support.runs import make_world
from tests.support.runs import train as made_run

HEAVY = {"torch", "transformers", "accelerate", "peft", "deepspeed"}


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def run_cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """`densekit ...` in this process and in an empty folder, through the function that the script
    calls.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path | int) -> Result:
        monkeypatch.setattr(sys, "argv", ["densekit", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int | None)
        return Result(code or 0, captured.out, captured.err)

    return call


def test_version_and_help(run_cli: Cli) -> None:
    assert run_cli("--version") == (0, f"{densekit.__version__}\n", "")
    told = run_cli("--help")
    assert told.code == 0
    verbs = (
        "recipes",
        "show",
        "plan",
        "run",
        "diff",
        "verify",
        "replay",
        "train",
        "parity",
        "evaluate",
    )
    assert all(verb in told.out for verb in verbs)


def test_recipes(run_cli: Cli) -> None:
    listed = json.loads(run_cli("recipes", "--json").out)
    assert [item["name"] for item in listed] == recipe_names()
    assert {"title", "paper", "stage", "needs"} <= listed[0].keys()
    assert listed[0].keys() == {"name", "title", "paper", "stage", "needs", "waits_for", "scores"}
    told = run_cli("recipes").out
    assert "Table 4: language models\n" in told and "  phi2_stage1 -> phi2_stage2\n" in told
    assert max(map(len, told.splitlines())) <= 120


def test_show_sources(run_cli: Cli) -> None:
    told = run_cli("show", "yi34b_stage2_lora", "--sources", "--set", "seed=7").out.splitlines()
    assert "seed = 7  [--set seed=7]" in told
    place = told.index("lora.r = 128  [recipes/base/large_stage2_lora.yaml:4]")
    assert (
        told[place + 1]
        == "    paper section 4.1 (r 128, alpha 256); official LoRA script (also dropout 0.05, no bias)"
    )
    assert "models.tokenizer = null  [schema default]" in told
    values = json.loads(run_cli("show", "yi34b_stage2_lora", "--sources", "--json").out)
    assert {tuple(value) for value in values} == {("field", "value", "place", "source", "meaning")}
    whole = json.loads(run_cli("show", "yi34b_stage2_lora", "--json").out)
    assert len(values) > len(whole) and {
        value["field"].partition(".")[0] for value in values
    } == whole.keys() - {
        "sources",
        "notes",
    }


def test_pin_without_a_network(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from densekit.recipes import revisions

    before = revisions.REVISIONS_FILE.read_bytes()
    monkeypatch.setattr(revisions, "HuggingFaceHub", lambda: NoHub())
    told = run_cli("pin")
    assert (told.code, told.out) == (
        3,
        "",
    ) and "densekit: lmsys/vicuna-7b-v1.5: nobody there" in told.err
    assert run_cli("pin", "microsoft/phi-3").code == 2
    assert revisions.REVISIONS_FILE.read_bytes() == before


class NoHub:
    """A hub that is out of reach."""

    def commit(self, repo: str, kind: str) -> str:
        raise DataError(f"{repo}: nobody there")


@pytest.mark.parametrize("name", recipe_names())
def test_show_is_a_recipe_again(run_cli: Cli, name: str) -> None:
    values = json.loads(run_cli("show", name, "--json").out)
    assert values == yaml.safe_load(run_cli("show", name).out)
    assert Recipe.model_validate(values).name == name


def test_show_follows_overrides(run_cli: Cli) -> None:
    shown = run_cli(
        "show", "tiny_stage1", "--set", "seed=3", "--set", "title=\u00e9t\u00e9 \u00d7", "--json"
    )
    assert (json.loads(shown.out)["seed"], json.loads(shown.out)["title"]) == (
        3,
        "\u00e9t\u00e9 \u00d7",
    )


def test_plan(run_cli: Cli) -> None:
    planned = json.loads(
        run_cli("plan", "vicuna7b_clip_stage2", "--gpus", "8", "--micro-batch", "4", "--json").out
    )
    assert (planned["steps"], planned["samples_repeated"], planned["gpus"]) == (5198, 46, 8)
    assert planned["micro_batches"] == [[4, 4, 4, 4]] * 8
    told = run_cli("plan", "vicuna7b_clip_stage1")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("vicuna7b_clip_stage1 on 8 x a100-40g: fits\n")
    assert re.search(
        r"^  steps +2181 over 558128 samples; 208 samples repeated, 0 dropped$",
        told.out,
        re.MULTILINE,
    )
    assert "note: " in told.out and "what fits, fewest GPU-hours first:" in told.out


PLAN_KEYS = {
    "recipe",
    "gpu",
    "gpus",
    "nodes",
    "micro_batch_size",
    "grad_accum_steps",
    "micro_batches",
    "global_batch_size",
    "steps",
    "samples_dropped",
    "samples_repeated",
    "certificate_sha256",
    "image",
    "attention",
    "dtype",
    "zero_stage",
    "checkpointing",
    "memory_gib",
    "fits",
    "hours",
    "disk_gib",
    "notes",
}


@pytest.mark.parametrize("recipe", ["tiny_stage2", "vicuna7b_clip_stage2"])
def test_plan_for_programs(run_cli: Cli, recipe: str) -> None:
    planned = json.loads(run_cli("plan", recipe, "--json").out)
    assert planned.keys() >= PLAN_KEYS
    assert planned["fits"] is True and planned["memory_gib"]["peak"] > 0 and planned["disk_gib"] > 0
    parts = {
        name: size for name, size in planned["memory_gib"].items() if name not in ("peak", "host")
    }
    assert sum(parts.values()) == pytest.approx(
        planned["memory_gib"]["peak"], abs=0.005 * (len(parts) + 1)
    )


def test_plan_with_a_price_and_the_arithmetic(run_cli: Cli) -> None:
    wanted = ("plan", "vicuna7b_clip_stage2", "--gpu", "h200", "--gpus", "4", "--price", "2.5")
    planned = json.loads(run_cli(*wanted, "--json").out)
    assert (planned["gpu"], planned["gpus"], planned["nodes"]) == ("h200-141g", 4, 1)
    for end in ("low", "high"):
        assert planned["cost"][end] == pytest.approx(planned["hours"][end] * 4 * 2.5, rel=0.01)
    assert "alternatives" not in planned and "why" not in planned
    told = run_cli(*wanted, "--why").out
    for subject in ("layouts", "memory", "time", "disk"):
        assert f"why, {subject}:\n" in told
    assert (
        re.search(r"^  cost +\d+\.\d to \d+\.\d$", told, re.MULTILINE) and "what fits" not in told
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("slurm", "--container", "pyxis"), "say which image with --image"),
        (("docker", "--nodes", "2", "--gpus", "4"), "the docker launcher knows this host only"),
        (("local", "--nodes", "2", "--gpus", "4"), "the local launcher knows this host only"),
        (("local", "--image", "mine"), "the local launcher has no container"),
        (
            ("docker", "--sbatch", "partition=gpu"),
            "are for --launcher slurm; this run takes docker",
        ),
        (("local", "--queue-minutes", "5"), "are for --launcher slurm; this run takes local"),
    ],
)
def test_print_refuses_what_would_be_refused(
    run_cli: Cli, options: tuple[str, ...], message: str
) -> None:
    found = run_cli("run", "tiny_stage1", "--print", "--launcher", *options)
    assert found.code == 2 and message in found.err


def test_plan_of_a_run_that_is_over_at_once(run_cli: Cli) -> None:
    told = run_cli("plan", "vicuna7b_clip_stage1", "--set", "optimizer.max_steps=1").out
    assert "hours        0.000" in told and "what fits, fewest GPU-hours first:" in told


def test_plan_says_what_the_row_scored_unless_it_was_changed(run_cli: Cli) -> None:
    row = ("plan", "vicuna7b_clip_stage2", "--gpu", "h200")
    assert "reported     GQA 63.8, " in run_cli(*row).out
    assert json.loads(run_cli(*row, "--json").out)["reported"]["GQA"] == 63.8
    assert "reported" not in run_cli(*row, "--set", "optimizer.learning_rate=0.1").out


def test_plan_lists_what_else_fits(run_cli: Cli) -> None:
    planned = json.loads(run_cli("plan", "vicuna7b_clip_stage2", "--json").out)
    found = planned["alternatives"]
    spent = [(one["gpu_hours"]["low"] * one["gpu_hours"]["high"]) ** 0.5 for one in found]
    assert spent == sorted(spent) and len({one["gpu"] for one in found}) >= 5
    assert any((one["gpu"], one["gpus"]) == ("a100-40g", 8) for one in found)
    one = found[0]
    again = run_cli(
        "plan", "vicuna7b_clip_stage2", "--gpu", one["gpu"], "--gpus", one["gpus"], "--json"
    )
    assert json.loads(again.out)["hours"] == one["hours"]


def test_plan_counts_a_file_that_is_there(run_cli: Cli, tmp_path: Path) -> None:
    text = "extends: tiny_stage1\ndata: {annotations: 'data:a.json', samples: null}\n"
    recipe = write_json(tmp_path / "mine.yaml", text)
    assert json.loads(run_cli("plan", recipe, "--json").out)["steps"] is None
    write_json(tmp_path / "elsewhere" / "a.json", [entry()] * 40)
    planned = json.loads(run_cli("plan", recipe, "--data-dir", "elsewhere", "--json").out)
    assert (planned["num_samples"], planned["steps"]) == (40, 3)
    write_json(tmp_path / "elsewhere" / "a.json", "[")
    told = run_cli("plan", recipe, "--data-dir", "elsewhere")
    assert told.code == 3 and "a.json: line 1, column 2: broken JSON" in told.err


def test_thinking_makes_nothing(run_cli: Cli, tmp_path: Path) -> None:
    for arguments in (["recipes"], ["show", "tiny_stage2"], ["plan", "tiny_stage2"]):
        assert run_cli(*arguments).code == 0
    assert names(tmp_path) == []


def test_run_trains_where_it_is_told(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    told = run_cli("run", "tiny_stage2", "--runs-dir", "r", "--data-dir", "d", "--gpus", "2")
    assert (told.code, told.err) == (0, "")
    assert re.search(
        r"tiny_stage1: training in r/tiny_stage1-[0-9a-f]{10} on 2 CPU process", told.out
    )
    (execution,) = (tmp_path / "r").glob("tiny_stage2-*/attempts/0001/execution.json")
    values = json.loads(execution.read_text(encoding="utf-8"))
    assert values["roots"]["data"] == str(tmp_path / "d")
    assert "already complete" in run_cli("run", "tiny_stage2", "--runs-dir", "r").out
    assert (
        "the earlier run is now r/tiny_stage2"
        in run_cli("run", "tiny_stage2", "--runs-dir", "r", "--force").out
    )


@pytest.mark.parametrize("code", [1, 2, 3, 130])
def test_run_ends_as_its_trainer_did(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(local, "command", trainer(f"status('failed', 'why', {code}); sys.exit(1)"))
    assert run_cli("run", "tiny_stage1").code == code


WRONG = {
    "no such recipe": (
        ["run", "tiny_stage3"],
        2,
        "no recipe named 'tiny_stage3'; did you mean tiny_stage",
    ),
    "a row that waits": (
        ["run", "vicuna7b_anyres_stage2"],
        2,
        "vicuna7b_anyres_stage2 waits for anyres: training on",
    ),
    "a name far from any": (["show", "zzz"], 2, "`densekit recipes` lists them"),
    "no such file": (["plan", "./nope.yaml"], 2, "nope.yaml does not exist"),
    "a folder for a recipe": (
        ["run", "folder.yaml"],
        2,
        "folder.yaml is a folder, not a YAML file",
    ),
    "a name too long": (["show", "a" * 300], 3, "File name too long"),
    "an empty file": (["run", "empty.yaml"], 2, "empty.yaml: it has to be a mapping"),
    "a binary file": (["run", "binary.yaml"], 2, "binary.yaml: cannot be read as UTF-8"),
    "a path for a name": (
        ["run", "tiny_stage1", "--set", "name=../x"],
        2,
        "`name`: run directories are named after",
    ),
    "an unknown key": (
        ["run", "tiny_stage1", "--set", "optimiser.lr=1"],
        2,
        "`optimiser`: unknown key; did you mean",
    ),
    "a key without a value": (
        ["run", "tiny_stage1", "--set", "seed"],
        2,
        "--set 'seed': write it as key=value",
    ),
    "a wrong value": (
        ["run", "tiny_stage1", "--set", "seed=x"],
        2,
        "--set seed=x: `seed`: Input should be a valid",
    ),
    "half a character": (
        ["run", "tiny_stage1", "--set", "title=\udcff"],
        2,
        "the value is not valid YAML",
    ),
    "no process": (
        ["run", "tiny_stage1", "--gpus", "0"],
        2,
        "--gpus 0: tiny_stage1 feeds 16 samples per step",
    ),
    "too many processes": (
        ["plan", "tiny_stage1", "--gpus", "1000"],
        2,
        "so 1 to 16 processes can work",
    ),
    "a word for a number": (["run", "tiny_stage1", "--gpus", "all"], 2, "'--gpus'"),
    "a GPU that is none": (
        ["plan", "vicuna7b_clip_stage1", "--gpu", "a100-81g"],
        2,
        "did you mean a100-80g",
    ),
    "a GPU of two sizes": (
        ["plan", "vicuna7b_clip_stage1", "--gpu", "v100"],
        2,
        "which of v100-16g and v100-32g?",
    ),
    "a GPU and no GPU": (
        ["plan", "tiny_stage1", "--gpu", "h200", "--device", "cpu"],
        2,
        "one of the two",
    ),
    "bf16 on a V100": (
        ["plan", "vicuna7b_clip_stage1", "--gpu", "v100-32g", "--dtype", "bf16"],
        2,
        "bf16 needs 8.0",
    ),
    "uneven nodes": (
        ["plan", "vicuna7b_clip_stage1", "--nodes", "3"],
        2,
        "--nodes 3: every node runs the same share",
    ),
    "no price": (
        ["plan", "tiny_stage1", "--price", "-1"],
        2,
        "--price -1.0: what one GPU costs for an hour",
    ),
    "offload by ZeRO-2": (
        ["plan", "tiny_stage1", "--offload", "--zero-stage", "2"],
        2,
        "nearest: --zero-stage 3",
    ),
    "no sample": (
        ["run", "tiny_stage1", "--micro-batch", "0"],
        2,
        "--micro-batch 0: at least one sample",
    ),
    "a file for the runs": (
        ["run", "tiny_stage1", "--runs-dir", "file"],
        2,
        "--runs-dir file: is not a folder",
    ),
    "no models": (
        ["run", "vicuna7b_clip_stage2"],
        3,
        "models.language_model: no model in models/lmsys/vicuna-7b-v1.5",
    ),
    "a root too long": (
        ["run", "vicuna7b_clip_stage1", "--models-dir", "m" * 300],
        3,
        "File name too long",
    ),
    "nothing to train": (["train", "nope"], 3, "nope/status.json is missing"),
    "a file to train": (["train", "file"], 3, "file/status.json cannot be read"),
    "nothing recorded": (["parity", "nope"], 3, "nope"),
    "nothing to compare": (
        ["diff", "nope", "folder.yaml"],
        3,
        "nope is no run directory: it has no math.json; give a",
    ),
    "a file to compare": (["diff", "file", "nope"], 3, "file is no run directory"),
    "a tolerance below 0": (
        ["diff", "a", "b", "--tolerance=-1"],
        2,
        "tolerance -1.0: give a number from 0 on",
    ),
    "a word for a tolerance": (["diff", "a", "b", "--tolerance", "small"], 2, "'--tolerance'"),
    "one run to compare": (["diff", "a"], 2, "Missing argument"),
    "nothing to verify": (["verify", "nope"], 3, "nope is no run directory"),
    "nothing to replay": (["replay", "folder.yaml"], 3, "folder.yaml is no run directory"),
    "no tolerance to replay with": (
        ["replay", "nope", "--tolerance", "nan"],
        2,
        "tolerance nan: give a number",
    ),
    "evaluate": (
        ["evaluate", "runs/x"],
        2,
        "evaluate runs/x: the paper's benchmarks are not connected yet (the lmms-",
    ),
    "no such verb": (["reproduce"], 2, "No such command 'reproduce'"),
    "no recipe at all": (["run"], 2, "Missing argument"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_user_gets_wrong(run_cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "empty.yaml").write_bytes(b"")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "file").write_bytes(b"")
    arguments, code, message = WRONG[name]
    before = names(tmp_path)
    told = run_cli(*arguments)
    assert told.code == code
    assert message in told.err
    assert told.out == ""
    assert "Traceback" not in told.err
    assert names(tmp_path) == before


def _image_gone(mine: Path) -> None:
    (mine / "images" / "a.png").unlink()


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotations": (lambda mine: (mine / "two.json").unlink(), "two.json: cannot be read"),
    "broken JSON": (
        lambda mine: write_json(mine / "two.json", '[{"id": 1},'),
        "two.json: line 1, column 12: broken",
    ),
    "a tag without an image": (
        lambda mine: write_json(mine / "two.json", [entry(image=None)]),
        "two.json: entry 0: t",
    ),
    "no image": (_image_gone, "one.json: entry 0: image"),
    "no weights": (
        lambda mine: (mine / "llm" / "model.safetensors").unlink(),
        "models.language_model: ",
    ),
    "no image folder": (
        lambda mine: shutil.rmtree(mine / "images"),
        "a.png does not exist; 3 of 3 entries",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_trained_on(run_cli: Cli, tmp_path: Path, name: str) -> None:
    recipe = make_pair(tmp_path / "mine")
    damage, message = BAD_DATA[name]
    damage(tmp_path / "mine")
    told = run_cli("run", recipe)
    assert (told.code, told.out) == (3, "")
    assert told.err.startswith("densekit: ") and told.err.count("\n") == 1 and message in told.err
    assert names(tmp_path) == ["mine"]


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one with another learning rate; by names that need no quoting."""
    world = make_world(tmp_path / "world")
    how = {"attention": "sdpa", "zero_stage": 0, "threads": 1}
    one, two = (
        made_run(
            world, tmp_path / "runs", recipe={"optimizer": {"learning_rate": rate}}, execution=how
        )
        for rate in (0.001, 0.002)
    )
    return one.relative_to(tmp_path), two.relative_to(tmp_path)


def test_diff(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    one, two = two_runs
    same = run_cli("diff", one, one)
    assert (same.code, same.err) == (0, "")
    assert same.out.splitlines()[2:] == ["equal to the last bit over 6 steps", "nothing to report"]
    told = run_cli("diff", one, two)
    assert (told.code, told.err) == (1, "")
    lines = told.out.splitlines()
    assert lines[0].startswith(f"a: {one} (run ") and lines[1].startswith(f"b: {two} (run ")
    assert lines[2] == "the runs part at step 1 by the learning rate: 0.001 and 0.002"
    assert (
        lines[-1]
        == "1. the learning rate differs: 0.001 and 0.002 (math.json, recipe.optimizer.learning_rate)"
    )
    assert run_cli("diff", one, two, "--tolerance", "1e9").code == 1, (
        "the tolerance is for losses and gradient norms"
    )


def test_diff_for_programs(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    told = run_cli("diff", *two_runs, "--json", "--tolerance", "0")
    found = json.loads(told.out)
    assert (told.code, told.err, found["equal"], found["tolerance"]) == (1, "", False, 0.0)
    assert (found["partings"][0]["kind"], found["partings"][0]["step"]) == ("lr", 1)
    assert [cause["topic"] for cause in found["causes"]] == ["schedule"]
    assert json.loads(run_cli("diff", two_runs[0], two_runs[0], "--json").out)["equal"] is True


def test_verify(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    run, _ = two_runs
    told = run_cli("verify", run)
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert len(lines) > 8 and all(re.match(r"ok    \w+: .", line) for line in lines)
    shutil.move("world", "gone")
    told = run_cli("verify", run)
    assert told.code == 0 and re.search(
        r"^warn  annotations: not checked: \S+/train\.json is", told.out, re.MULTILINE
    )
    (run / "connector.safetensors").write_bytes(b"")
    told = run_cli("verify", run)
    assert told.code == 1 and re.search(r"^fail  outputs: \S+ was changed", told.out, re.MULTILINE)
    found = json.loads(run_cli("verify", run, "--json").out)
    assert found["ok"] is False
    assert [check["name"] for check in found["checks"] if check["state"] == "fail"] == ["outputs"]


def test_replay(run_cli: Cli, two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = two_runs
    copied = "import shutil; shutil.copytree({!r}, path, dirs_exist_ok=True)"
    monkeypatch.setattr(local, "command", trainer(copied.format(str(run.resolve()))))
    told = run_cli("replay", run, "--runs-dir", "again", "--tolerance", "1e-3", "--deterministic")
    assert (told.code, told.err) == (0, "")
    assert told.out.endswith("the replay is equal to the last bit, trained weights included\n")
    assert [name for name in names(Path("again")) if name[0] != "."] == [f"{run.name}.replay1"]
    monkeypatch.setattr(local, "command", trainer("status('failed', 'why', 3); sys.exit(3)"))
    assert run_cli("replay", run).code == 3
    assert (run.parent / f"{run.name}.replay1").is_dir()


def test_missing_packages_are_named(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in HEAVY else object()
    )
    for verb in ("train", "parity"):
        told = run_cli(verb, "x")
        assert (
            told.code == 2
            and "torch, transformers, accelerate, peft, deepspeed not installed: run `make setup`"
            in told.err
        )


def _densekit(
    *arguments: str, options: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-m", "densekit", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **env}
    )


@pytest.mark.parametrize("verb", ["plan", "diff", "verify", "replay"])
def test_thinking_loads_no_heavy_package(verb: str) -> None:
    arguments = {"plan": ["vicuna7b_clip_stage2", "--why"], "diff": ["nope", "nope"]}.get(
        verb, ["nope"]
    )
    result = _densekit(verb, *arguments, options=("-X", "importtime"))
    assert result.returncode == (0 if verb == "plan" else 3) and "Traceback" not in result.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert {"densekit", "pydantic"} <= loaded
    assert not loaded & HEAVY


def test_a_terminal_without_the_letters() -> None:
    result = _densekit(
        "show", "tiny_stage1", "--set", "title=\u00e9t\u00e9", PYTHONIOENCODING="ascii"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "title: \\xe9t\\xe9" in result.stdout


def test_a_refusal_of_the_real_program() -> None:
    result = _densekit("run", "tiny_stage3")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("densekit: no recipe named 'tiny_stage3'; did you mean ")
    assert result.stderr.count("\n") == 1
