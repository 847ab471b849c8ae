"""Site settings: which of command line, environment, file and default holds; what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from densekit.cli.site import effective_settings, site_settings, variable
from densekit.launch.launchers import local
from densekit.spec.math import Math
from densekit.spec.site import Site
from tests.support.command_line import Cli
from tests.support.launching import trainer

DOCS = Path(__file__).parents[2] / "docs" / "site-settings.md"
# Key -> three values as they are written, and as they are read.
VALUES: dict[str, tuple[str, str, str]] = {
    "runs_dir": ("a", "b", "c"),
    "data_dir": ("a", "b", "c"),
    "models_dir": ("a", "b", "c"),
    "cache_dir": ("a", "b", "c"),
    "launcher": ("local", "docker", "slurm"),
    "image": ("a", "b", "c"),
    "gpu": ("h200", "h100", "b200"),
    "container": ("pyxis", "apptainer", "none"),
    "sbatch": ("partition=a", "partition=b", "partition=c"),
    "queue_minutes": ("1.0", "2.0", "3.0"),
    "save_steps": ("1", "2", "3"),
    "save_minutes": ("1.0", "2.0", "3.0"),
    "keep": ("1", "2", "3"),
    "keep_hours": ("1.0", "2.0", "3.0"),
    "price": ("1.0", "2.0", "3.0"),
}


@pytest.fixture(autouse=True)
def empty_folder(run_cli: Cli) -> None:
    """No file and no variable of whoever runs the tests."""


def written(key: str, value: str) -> str:
    return f"{key}: [{value}]\n" if key == "sbatch" else f"{key}: {value}\n"


def shown(key: str) -> tuple[str, str]:
    """Value and origin in effect."""
    found = effective_settings()
    value = getattr(found.site, key)
    return " ".join(value) if key == "sbatch" else str(value), found.origins[key]


def test_every_key_is_tested_and_documented() -> None:
    assert list(VALUES) == list(Site.model_fields)
    table = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == list(Site.model_fields)


def test_no_key_is_of_the_math() -> None:
    assert not Site.model_fields.keys() & Math.model_fields.keys()


@pytest.mark.parametrize("key", VALUES)
def test_file_goes_before_default(key: str) -> None:
    assert shown(key)[1] == "default"
    in_file = VALUES[key][0]
    Path("densekit.yaml").write_text("# ours\n" + written(key, in_file), encoding="utf-8")
    assert shown(key) == (in_file, "densekit.yaml:2")


@pytest.mark.parametrize("key", VALUES)
def test_variable_goes_before_file(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_file, in_variable, _ = VALUES[key]
    Path("densekit.yaml").write_text(written(key, in_file), encoding="utf-8")
    monkeypatch.setenv(variable(key), in_variable)
    assert shown(key) == (in_variable, variable(key))
    monkeypatch.setenv(variable(key), "")
    assert shown(key) == (in_file, "densekit.yaml:1")


@pytest.mark.parametrize("key", VALUES)
def test_command_line_goes_before_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(key), VALUES[key][1])
    on_line = VALUES[key][2]
    assert getattr(site_settings(**{key: on_line}), key) == on_line
    assert getattr(site_settings(**{key: None}), key) != on_line


@pytest.mark.ranks
def test_run_reads_its_folders(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command itself: one folder from each source."""
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    text = "".join(f"{key}: file\n" for key in ("runs_dir", "data_dir", "models_dir"))
    Path("densekit.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("DENSEKIT_DATA_DIR", "variable")
    monkeypatch.setenv("DENSEKIT_MODELS_DIR", "variable")
    assert run_cli("run", "tiny_stage1", "--models-dir", "line").code == 0
    (execution,) = Path("file").glob("tiny_stage1-*/attempts/0001/execution.json")
    roots = json.loads(execution.read_text(encoding="utf-8"))["roots"]
    cache = str(tmp_path / ".cache" / "densekit")
    named = {"data": str(tmp_path / "variable"), "models": str(tmp_path / "line"), "cache": cache}
    assert roots == named
    assert run_cli("ls").out.splitlines()[1].startswith("tiny_stage1-")


def test_named_file_takes_the_place_of_densekit_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("densekit.yaml").write_text("keep: 3\nruns_dir: here\n", encoding="utf-8")
    assert (shown("keep")[0], shown("runs_dir")[0]) == ("3", "here")
    folder = Path("cluster")
    folder.mkdir()
    text = "runs_dir: there\ndata_dir: /data\nmodels_dir: ~/models\n"
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("DENSEKIT_SITE", "cluster/site.yaml")
    monkeypatch.setenv("HOME", "/home-of-tests")
    assert shown("keep")[1] == "default"
    assert shown("runs_dir") == ("cluster/there", "cluster/site.yaml:1")
    assert shown("data_dir")[0] == "/data"
    assert shown("models_dir")[0] == "/home-of-tests/models"
    monkeypatch.setenv("DENSEKIT_SITE", "/dev/null")
    assert shown("runs_dir")[1] == "default"


REFUSED = {
    "seed": ("# a\nseed: 3\n", "densekit.yaml:2: `seed` belongs to recipes: ", "--set seed=..."),
    "optimizer": (
        "optimizer: {learning_rate: 1}\n",
        "densekit.yaml:1: `optimizer` belongs to recipes: site settings change where and how a run "
        "trains, never what it computes",
        "--set optimizer=...",
    ),
    "part of a section": (
        "learning_rate: 1\n",
        "densekit.yaml:1: `learning_rate` belongs to recipes",
        "--set optimizer.learning_rate=...",
    ),
    "data": ("data: /data\n", "`data` belongs to recipes", "did you mean `data_dir`?"),
    "typing error": (
        "keep: 2\nlancher: slurm\n",
        "densekit.yaml:2: `lancher`: unknown key",
        "did you mean `launcher`?",
    ),
    "execution": ("dtype: bf16\n", "densekit.yaml:1: `dtype`: unknown key", "known keys here: "),
    "launcher": (
        "launcher: slrum\n",
        "densekit.yaml:1: `launcher`: no launcher is named 'slrum'",
        "did you mean slurm?",
    ),
    "gpu": ("gpu: h2000\n", "densekit.yaml:1: `gpu` h2000: unknown GPU", "h200"),
    "sbatch": ("sbatch: [array=1-2]\n", "densekit.yaml:1: `sbatch` array: omit it", ""),
    "number": ("keep: none\n", "densekit.yaml:1: `keep`: Input should be", '(got "none")'),
    "negative": ("queue_minutes: -1\n", "densekit.yaml:1: `queue_minutes`: Input should be", ""),
    "list": ("sbatch: partition=gpu\n", "densekit.yaml:1: `sbatch`: Input should be", ""),
    "runtime": ("container: podman\n", "`container`: Input should be 'none', 'pyxis' or", ""),
    "path": ("runs_dir: [1]\n", "densekit.yaml:1: `runs_dir`: must be a path (got [1])", ""),
    "home": ("runs_dir: ~nobody-here/x\n", "densekit.yaml:1: `runs_dir`: ~nobody-here/x: ~ is", ""),
    "YAML": ("keep: [\n", "densekit.yaml:2: not valid YAML", ""),
    "no mapping": ("- keep\n", "densekit.yaml: must be a mapping of keys to values", ""),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("verb", ["site", "ls"])
def test_wrong_file_is_refused(run_cli: Cli, name: str, verb: str) -> None:
    text, start, hint = REFUSED[name]
    Path("densekit.yaml").write_text(text, encoding="utf-8")
    result = run_cli(verb)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert start in result.err and hint in result.err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("keep", "x", "DENSEKIT_KEEP: `keep`: Input should be a valid integer"),
        ("launcher", "x", "DENSEKIT_LAUNCHER: `launcher`: no launcher is named 'x'; there are"),
        ("site", "x", "DENSEKIT_SITE=x: there is no such file"),
        ("site", "~nobody-here/x", "~ is no home folder here; write the path out"),
        ("sbatch", "a='b", "DENSEKIT_SBATCH=a='b: no closing quotation"),
    ],
)
def test_wrong_variable_is_refused(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, key: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable(key), value)
    result = run_cli("ls")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


def test_a_folder_of_its_name_is_refused(run_cli: Cli) -> None:
    Path("densekit.yaml").mkdir()
    result = run_cli("ls")
    assert result.code == 2 and "densekit.yaml: there is no such file" in result.err


def test_help_and_recipes_do_not_need_the_file(run_cli: Cli) -> None:
    Path("densekit.yaml").write_text("seed: 1\n", encoding="utf-8")
    for words in (["run", "--help"], ["recipes"], ["show", "tiny_stage1"]):
        assert run_cli(*words).code == 0


def test_site_prints_values_and_origins(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("densekit.yaml").write_text("sbatch: [partition=gpu, exclusive]\n", encoding="utf-8")
    monkeypatch.setenv("DENSEKIT_KEEP", "5")
    lines = [re.split(" {2,}", line) for line in run_cli("site").out.splitlines()]
    assert lines[0] == ["setting", "value", "from"]
    assert ["sbatch", "partition=gpu exclusive", "densekit.yaml:1"] in lines
    assert ["keep", "5", "DENSEKIT_KEEP"] in lines
    assert ["runs_dir", "runs", "default"] in lines
    assert ["save_minutes", "15", "default"] in lines and ["keep_hours", "0", "default"] in lines
    assert ["launcher", "docker on a GPU host, else local", "default"] in lines
    assert not {"-", "None", ""} & {line[1] for line in lines}
    printed = json.loads(run_cli("site", "--json").out)
    assert (printed["schema"], printed["file"]) == (1, "densekit.yaml")
    assert printed["settings"].keys() == Site.model_fields.keys()
    assert printed["settings"]["save_minutes"] == {"value": None, "origin": "default"}
    assert printed["settings"]["keep"] == {"value": 5, "origin": "DENSEKIT_KEEP"}


CLUSTER = """\
launcher: slurm
container: apptainer
image: /images/ours.sif
gpu: h200
sbatch: [partition=gpu, account=a]
queue_minutes: 5
"""


@pytest.fixture
def printed(run_cli: Cli) -> Callable[..., str]:
    """What `densekit run --print` prints on a cluster of that file."""

    def call(*arguments: str) -> str:
        Path("densekit.yaml").write_text(CLUSTER, encoding="utf-8")
        result = run_cli("run", "tiny_stage1", "--print", *arguments)
        assert result.code == 0, result.err
        return result.out

    return call


def test_launcher_of_the_site_takes_its_settings(printed: Callable[..., str]) -> None:
    text = printed()
    assert text.startswith("# launcher slurm (site settings): the cluster's nodes\n")
    assert "#SBATCH --partition=gpu\n#SBATCH --account=a\n" in text
    assert "apptainer exec" in text and "/images/ours.sif" in text


def test_command_line_goes_before_the_launchers_settings(printed: Callable[..., str]) -> None:
    text = printed("--sbatch", "account=b", "--sbatch", "time=10", "--image", "mine.sif")
    assert "--partition=gpu" in text and "--account=b" in text and "--time=10" in text
    assert "--account=a" not in text
    assert "mine.sif" in text and "ours.sif" not in text
    bare = printed("--container", "none")
    assert "apptainer" not in bare


def test_another_launcher_takes_none_of_them(
    run_cli: Cli, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed("--launcher", "local")
    assert text.startswith("# launcher local (as asked): the CPU\n") and "SBATCH" not in text
    docker = printed("--launcher", "docker")
    assert "densekit:cpu" in docker and "ours.sif" not in docker
    monkeypatch.setenv("DENSEKIT_LAUNCHER", "local")
    assert printed().startswith("# launcher local (site settings): the CPU\n")


def test_options_of_another_launcher_are_refused_on_the_command_line(run_cli: Cli) -> None:
    Path("densekit.yaml").write_text("launcher: local\nqueue_minutes: 5\n", encoding="utf-8")
    assert run_cli("run", "tiny_stage1", "--print").code == 0
    result = run_cli("run", "tiny_stage1", "--print", "--queue-minutes", "5")
    assert result.code == 2 and "--queue-minutes: the local launcher does not take it" in result.err


def test_gpu_of_the_cluster(run_cli: Cli) -> None:
    from densekit.launch.selection import select
    from densekit.recipes.load import load_recipe
    from densekit.spec.execution import ExecutionRequest

    recipe, site = load_recipe("vicuna7b_clip_stage2"), Site(launcher="slurm", gpu="h200")
    selection = select(recipe, ExecutionRequest(), site=site)
    assert selection.hardware is not None and selection.hardware.name == "h200-141g"
    asked = select(recipe, ExecutionRequest(gpu="h100-80g"), site=site)
    assert asked.hardware is not None and asked.hardware.name == "h100-80g"
    tiny = select(load_recipe("tiny_stage1"), ExecutionRequest(), site=site)
    assert tiny.hardware is None
