"""Whatever a user gets wrong ends in one message and exit code 2 or 3, and changes nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.files import names, write_json
from tests.support.launching import entry, make_pair

WRONG = {
    "no such recipe": (
        ["run", "tiny_stage3"],
        2,
        "no recipe named 'tiny_stage3'; did you mean tiny_stage",
    ),
    "a name far from any": (["show", "zzz"], 2, "`densekit recipes` lists them"),
    "no such file": (["plan", "./nope.yaml"], 2, "nope.yaml does not exist"),
    "a folder for a recipe": (
        ["run", "folder.yaml"],
        2,
        "folder.yaml is a folder, not a YAML file",
    ),
    "a name too long": (["show", "a" * 300], 3, "File name too long"),
    "an empty file": (["run", "empty.yaml"], 2, "empty.yaml: must be a mapping"),
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
        "--set seed: write it as key=value",
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
        "so it runs on 1 to 16 processes; use --gpus 16",
    ),
    "a word for a number": (["run", "tiny_stage1", "--gpus", "all"], 2, "'--gpus'"),
    "no run": (["report", ""], 2, "a run is named by nothing"),
    "GPUs elsewhere that are none": (
        ["doctor", "--gpu", "h200", "--gpus", "0"],
        2,
        "--gpus 0: give a number of at least 1",
    ),
    "a GPU that is none": (
        ["plan", "vicuna7b_clip_stage1", "--gpu", "a100-81g"],
        2,
        "did you mean a100-40g or a100-80g?",
    ),
    "a GPU of two sizes": (
        ["plan", "vicuna7b_clip_stage1", "--gpu", "v100"],
        2,
        "name its memory too, v100-16g or v100-32g",
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
        "--nodes 3: --gpus 8 is not a multiple of it",
    ),
    "no price": (
        ["plan", "tiny_stage1", "--price", "-1"],
        2,
        "--price -1.0: give what one GPU costs for an hour",
    ),
    "offload by ZeRO-2": (
        ["plan", "tiny_stage1", "--offload", "--zero-stage", "2"],
        2,
        "use --zero-stage 3",
    ),
    "no number of minutes": (
        ["run", "tiny_stage1", "--save-minutes", "nan"],
        2,
        "--save-minutes nan: give a number of at least 0",
    ),
    "endless hours": (
        ["run", "tiny_stage1", "--keep-hours", "inf"],
        2,
        "--keep-hours inf: give a number of at most 1000000",
    ),
    "no sample": (
        ["run", "tiny_stage1", "--micro-batch", "0"],
        2,
        "--micro-batch 0: give a number of at least 1",
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
        ["diff", "folder.yaml", "folder.yaml"],
        3,
        "folder.yaml is not a run directory: it has no math.json; give a",
    ),
    "a file to compare": (["diff", "file", "file"], 3, "file is not a run directory"),
    "a tolerance below 0": (
        ["diff", "file", "file", "--tolerance=-1"],
        2,
        "--tolerance -1.0: give a number of at least 0",
    ),
    "a word for a tolerance": (["diff", "a", "b", "--tolerance", "small"], 2, "'--tolerance'"),
    "one run to compare": (["diff", "a"], 2, "Missing argument"),
    "nothing to verify": (["verify", "folder.yaml"], 3, "folder.yaml is not a run directory"),
    "nothing to replay": (["replay", "folder.yaml"], 3, "folder.yaml is not a run directory"),
    "no tolerance to replay with": (
        ["replay", "file", "--tolerance", "nan"],
        2,
        "--tolerance nan: give a number",
    ),
    "evaluate": (
        ["evaluate", "runs/x"],
        2,
        "runs/x is neither a run directory nor a folder that `densekit import` made",
    ),
    "a benchmark of an answer file": (
        ["evaluate", "x", "--benchmark", "gqa"],
        2,
        "--benchmark and --questions belong to an answer file",
    ),
    "two answer files": (
        ["evaluate", "file", "file", "--as", "llava"],
        2,
        "one answer file at a time",
    ),
    "another form of answers": (
        ["evaluate", "file", "--as", "csv"],
        2,
        "--as csv: the form of answer files that is read is llava",
    ),
    "answers to no benchmark": (
        ["evaluate", "file", "--as", "llava"],
        2,
        "an answer file needs --benchmark NAME and --questions FILE",
    ),
    "nothing to follow": (["tail", "nope"], 3, "no run nope in runs; `densekit ls` lists the runs"),
    "nothing to stop": (["stop", "nope"], 3, "no run nope in runs; `densekit ls` lists the runs"),
    "a folder to follow": (["tail", "folder.yaml"], 3, "folder.yaml/status.json is missing"),
    "a run of another folder": (["verify", "x", "--runs-dir", "y"], 3, "no run x in y; `densekit"),
    "no image to build": (
        ["containers", "build", "h100"],
        2,
        "no container image is named h100; there are cpu, lmms, video, a100",
    ),
    "no such option": (
        ["ls", "--run-dir", "x"],
        2,
        "No such option: --run-dir (Possible options: ",
    ),
    "a verb of other programs": (
        ["list"],
        2,
        "No such command 'list': `recipes` lists the recipes, `ls` the runs; see `densekit --help`",
    ),
    "a verb misspelt": (["recipe"], 2, "Did you mean 'recipes'? See `densekit --help`"),
    "GPUs of no type": (["doctor", "--gpus", "2"], 2, "--gpus 2: name their type with --gpu"),
    "no such verb": (["reproduce"], 2, "No such command 'reproduce'; see `densekit --help`"),
    "no recipe at all": (["run"], 2, "Missing argument 'recipe'; see `densekit run --help`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_message(run_cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "empty.yaml").write_bytes(b"")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "file").write_bytes(b"")
    arguments, code, message = WRONG[name]
    before = names(tmp_path)
    result = run_cli(*arguments)
    assert result.code == code
    assert message in result.err
    assert result.out == ""
    told = [line for line in result.err.splitlines() if not line.startswith("  - ")]
    assert told[-1].startswith("densekit: ") or told[-1].endswith(":")
    assert result.err.count("densekit: ") == 1
    assert names(tmp_path) == before


def _image_gone(mine: Path) -> None:
    (mine / "images" / "a.png").unlink()


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotations": (lambda mine: (mine / "two.json").unlink(), "two.json is missing; give"),
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
        "a.png does not exist; 3 entries lack a usable image",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused_before_a_run_exists(run_cli: Cli, tmp_path: Path, name: str) -> None:
    recipe = make_pair(tmp_path / "mine")
    damage, message = BAD_DATA[name]
    damage(tmp_path / "mine")
    result = run_cli("run", recipe)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("densekit: ") and message in result.err
    # Of the stages' images, and of nothing else, there is a line each.
    assert result.err.count("\n") == (5 if "image" in name and "tag" not in name else 1)
    assert [found for found in names(tmp_path) if found != ".cache"] == ["mine"]
