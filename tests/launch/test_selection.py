"""What is chosen where nothing was asked for, what --print and doctor say, what ls and stop make of
runs.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError, UsageError
from densekit.launch.chain import Carrying, open_next_attempt
from densekit.launch.doctor import doctor
from densekit.launch.dry_run import show
from densekit.launch.launchers.docker import client as engine_module
from densekit.launch.launchers.docker.client import Engine, connect, sentences
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.in_flight import still_running, stop
from densekit.launch.launchers.local import Local
from densekit.launch.listing import list_runs
from densekit.launch.selection import Asked, Choice, choose
from densekit.planner.plan import Plan, make_plan
from densekit.planner.search import Fixed
from densekit.recipes.load import load_recipe
from densekit.runs.process_handle import Launched, read_launched, write_launched
from densekit.spec.roots import Roots
from tests.support.launching import A100, T4, V100, cards, fake_gpus, names, stub_run, write_json


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, no GPU, no Slurm, no container around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("DENSEKIT_TARGET", "CUDA_VISIBLE_DEVICES", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)


def put_in(monkeypatch: pytest.MonkeyPatch, folder: Path, *told: str) -> None:
    monkeypatch.setenv("PATH", f"{fake_gpus(folder, *told)}:/usr/bin:/bin")


PAPER = "vicuna7b_clip_stage2"


def planned(choice: Choice, recipe: str = PAPER, **wanted: Any) -> Plan:
    """What `run` would plan from a choice."""
    fixed = Fixed(**wanted)
    return make_plan(
        load_recipe(recipe),
        fixed,
        gpus=choice.gpus,
        nodes=choice.nodes,
        device=choice.device,
        hardware=choice.hardware,
    )


def test_a_gpu_host_gets_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, tmp_path, *cards(A100, 10))
    choice = choose(load_recipe(PAPER), Asked())
    assert (choice.launcher.name, choice.device, choice.gpus, choice.nodes) == (
        "docker",
        "cuda",
        8,
        1,
    )
    assert choice.hardware is not None and (choice.hardware.name, choice.hardware.memory_mib) == (
        "a100-80g",
        81920,
    )
    assert choice.reason.startswith(
        "launcher docker (this host has GPUs): 8 of 10 GPUs here (NVIDIA A100-SXM4-80GB, "
    )
    plan = planned(choice)
    assert (plan.dtype, plan.attention, plan.fits) == ("bf16", "flash", True)
    half = planned(choice, dtype="fp16")
    assert (half.dtype, half.attention, half.image) == ("fp16", "flash", "a100"), (
        "the image a100 has no xformers"
    )


def test_a_v100_computes_in_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, tmp_path, *cards(V100, 2))
    choice = choose(load_recipe("vicuna7b_clip_stage1"), Asked())
    plan = planned(choice, "vicuna7b_clip_stage1")
    assert (plan.gpu, plan.gpus, plan.dtype, plan.attention, plan.image) == (
        "v100-32g",
        2,
        "fp16",
        "xformers",
        "v100",
    )
    assert (
        planned(choice, "vicuna7b_clip_stage1", dtype="fp32", micro_batch_size=1).attention
        == "sdpa"
    )
    with pytest.raises(UsageError, match=r"bf16 needs 8\.0; use --dtype fp16 --attention xformers"):
        planned(choice, dtype="bf16")


def test_the_kind_of_a_clusters_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers = choose(load_recipe("llama3_70b_stage2_lora"), Asked(launcher="slurm"))
    assert papers.hardware is not None
    assert (papers.hardware.name, papers.gpus, papers.nodes) == ("a100-80g", 32, 4)
    said = choose(load_recipe(PAPER), Asked(launcher="slurm", gpu="h200", gpus=16))
    assert said.hardware is not None and (said.hardware.name, said.gpus, said.nodes) == (
        "h200-141g",
        16,
        2,
    )
    assert choose(load_recipe(PAPER), Asked(launcher="slurm", nodes=4)).nodes == 4
    put_in(monkeypatch, tmp_path, *cards(A100, 2))
    with pytest.raises(UsageError, match="--gpu h200: this host has a100-80g; leave --gpu away"):
        choose(load_recipe(PAPER), Asked(gpu="h200"))
    with pytest.raises(
        UsageError, match=r"--gpu h200: this run is on the processor \(a tiny recipe\)"
    ):
        choose(load_recipe("tiny_stage1"), Asked(gpu="h200"))
    with pytest.raises(UsageError, match="--gpu a100: which of a100-40g and a100-80g"):
        choose(load_recipe(PAPER), Asked(gpu="a100"))


@pytest.mark.parametrize(
    ("recipe", "told", "variables", "asked", "launcher", "why"),
    [
        ("tiny_stage1", cards(A100, 8), {}, {}, "local", "a tiny recipe"),
        (PAPER, [], {}, {}, "local", "no GPU here"),
        (
            PAPER,
            cards(A100, 8),
            {"DENSEKIT_TARGET": "a100"},
            {},
            "local",
            "this is a container already",
        ),
        (PAPER, cards(A100, 8), {}, {"device": "cpu"}, "local", "--device cpu"),
        (PAPER, cards(A100, 8), {}, {"launcher": "local"}, "local", "as asked"),
        (PAPER, [], {}, {"launcher": "slurm"}, "slurm", "as asked"),
        (
            PAPER,
            cards(A100, 4),
            {"CUDA_VISIBLE_DEVICES": "1,3"},
            {},
            "docker",
            "this host has GPUs",
        ),
    ],
)
def test_choices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    told: list[str],
    variables: dict[str, str],
    asked: dict[str, Any],
    launcher: str,
    why: str,
) -> None:
    put_in(monkeypatch, tmp_path, *told)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    choice = choose(load_recipe(recipe), Asked(**asked))
    assert choice.launcher.name == launcher and f"({why}" in choice.reason
    if "CUDA_VISIBLE_DEVICES" in variables:
        assert choice.gpus == 2


def commands(folder: Path, launcher: Any, recipe: str = "tiny_stage2", **ways: Any) -> str:
    roots = Roots(data=folder / "data", models=folder / "models", cache=folder / "cache")
    lines = show(
        recipe,
        overrides=(),
        runs_dir=folder / "runs",
        roots=roots,
        carrying=Carrying(**ways),
        launcher=launcher,
    )
    return "\n".join(lines)


def test_print_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = commands(tmp_path, Local(), gpus=2)
    assert (
        len(
            re.findall(
                r"densekit.train.torchrun --standalone --nproc-per-node 2 -m densekit train \S+-[0-9a-f]{10}",
                text,
            )
        )
        == 2
    )
    text = commands(tmp_path, Docker())
    assert (
        text.count("docker run --rm --name densekit-tiny_stage") == 2
        and text.count(" densekit:cpu python -m") == 2
    )
    first = re.search(r"train (\S+)", text)
    assert first and f"source={first[1]},target={first[1]}" in text
    assert "note: no container engine answers" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_print_where_data_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in(monkeypatch, tmp_path, *cards(A100, 8))
    text = commands(tmp_path, Docker(), PAPER, gpus=8, device="cuda")
    assert (
        """--gpus '"device=0,1,2,3,4,5,6,7"'""" in text
        and "densekit:a100" in text
        and f"{PAPER}-HASH" in text
    )
    assert "until then a run's hash is not known" in capsys.readouterr().err
    assert names(tmp_path) == ["smi"]


def test_no_engine() -> None:
    with pytest.raises(
        UsageError, match=r"no container engine answers \(.*start one .*or use --launcher local"
    ):
        connect()


@pytest.mark.parametrize(
    ("told", "meaning"),
    [
        (
            'could not select device driver "nvidia" with capabilities: [[gpu]]',
            "install the NVIDIA Container Toolkit",
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8",
            "driver is too old for the im",
        ),
        ("write /var/lib/x: no space left on device", "the engine's disk is full"),
        ("something else\nand more", "^the container engine refuses: something else$"),
    ],
)
def test_what_an_engine_refuses_is_a_sentence(told: str, meaning: str) -> None:
    errors = pytest.importorskip("docker.errors")
    with pytest.raises(DataError, match=meaning) as caught, sentences():
        raise errors.APIError("500 Server Error", explanation=told)
    assert "\n" not in str(caught.value)


class StubContainer:
    """A container whose start is refused."""

    removed = False

    def start(self) -> None:
        raise pytest.importorskip("docker.errors").APIError(
            "500", explanation="could not select device driver"
        )

    def remove(self, force: bool) -> None:
        self.removed = True


def test_a_container_that_does_not_start_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    made = StubContainer()

    class Client:
        class containers:
            create = staticmethod(lambda *arguments, **options: made)

    run, execution = stub_run(tmp_path, "")
    from densekit.launch.launchers.docker.container import describe

    container = describe(run, execution, image="x", image_id="y", devices=["0"], user="1:1")
    with pytest.raises(DataError, match="cannot hand out GPUs"):
        Engine(Client()).start(container)
    assert made.removed


def states(checks: Any) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_doctor_without_anything(tmp_path: Path) -> None:
    found = states(doctor("tiny_stage2", Roots(), tmp_path / "runs"))
    assert found["engine"] == "warn" and found["GPUs"] == "ok" and "fail" not in found.values()
    assert {"packages", "shm", "disk", "Slurm", "tiny_stage1", "tiny_stage2"} <= found.keys()
    assert states(doctor(PAPER, Roots(), tmp_path))[PAPER] == "fail", "its models are not here"
    assert names(tmp_path) == []


def test_doctor_on_a_gpu_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, tmp_path, *cards(A100, 2, used={1: 60000}))
    checks = {check.name: check for check in doctor(None, Roots(), tmp_path)}
    assert (checks["GPUs"].state, checks["driver"].state, checks["engine"].state) == (
        "warn",
        "ok",
        "fail",
    )
    assert "in use: 1" in checks["GPUs"].message
    assert "start one (`sudo systemctl start docker`)" in checks["engine"].message
    put_in(monkeypatch, tmp_path / "b", cards(A100, 1)[0].replace("550.54.15", "470.1"))
    assert states(doctor(None, Roots(), tmp_path))["driver"] == "fail"


def test_doctor_says_whether_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(recipe: str, *told: str) -> Any:
        put_in(monkeypatch, tmp_path / recipe, *told)
        return next(check for check in doctor(recipe, Roots(), tmp_path) if check.name == "memory")

    fits = memory(PAPER, *cards(A100, 8))
    assert fits.state == "ok"
    assert re.match(
        r"fits on 8 x NVIDIA A100-SXM4-80GB, 80 GiB: vicuna7b_clip_stage1 [\d.]+ GiB, ",
        fits.message,
    )
    small = memory("llama3_70b_stage2_lora", *cards(T4.replace("7.5", "8.0"), 1))
    assert (
        small.state == "fail" and "does not fit: its smallest worst-case row needs" in small.message
    )
    assert "memory" not in states(doctor("tiny_stage2", Roots(), tmp_path))


class StubClient:
    """An engine as doctor asks it: without the toolkit, with an old image."""

    def __init__(self, runtimes: dict[str, Any], version: str | None) -> None:
        self.runtimes, self.labels = (
            runtimes,
            {"org.opencontainers.image.version": version} if version else {},
        )
        self.images, self.id = self, "sha256:x"

    def info(self) -> dict[str, Any]:
        return {"Runtimes": self.runtimes}

    def version(self) -> dict[str, str]:
        return {"Version": "28"}

    def get(self, name: str) -> "StubClient":
        return self


@pytest.mark.parametrize(
    ("runtimes", "version", "told", "toolkit", "image"),
    [
        ({}, "0.1.0", A100, "fail", "ok"),
        ({"nvidia": {}}, "0.0.9", A100, "ok", "warn"),
        ({"nvidia": {}}, "0.1.0", T4, "ok", "fail"),
    ],
)
def test_doctor_asks_the_engine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtimes: dict[str, Any],
    version: str,
    told: str,
    toolkit: str,
    image: str,
) -> None:
    pytest.importorskip("docker")
    put_in(monkeypatch, tmp_path, *cards(told, 1))
    monkeypatch.setattr(
        "densekit.launch.doctor.connect", lambda: Engine(StubClient(runtimes, version))
    )
    found = states(doctor(None, Roots(), tmp_path))
    assert (found["toolkit"], found["image"]) == (toolkit, image)
    assert engine_module.connect is connect


def test_a_run_whose_process_is_gone(tmp_path: Path) -> None:
    run, _ = stub_run(tmp_path, "")
    write_launched(run, Launched(launcher="local", host=os.uname().nodename, pid=os.getpid()))
    run.set_status("running")
    (row,) = list_runs(tmp_path / "runs")
    assert row.state == "gone", "this process is no trainer, whatever its number"
    assert still_running(run) is None
    assert "was gone; `densekit run` goes on" in stop(run, now=True)
    assert run.status.state == "failed" and list_runs(tmp_path / "nope") == []


def test_a_run_on_another_machine(tmp_path: Path) -> None:
    run, _ = stub_run(tmp_path, "")
    write_launched(run, Launched(launcher="docker", host="elsewhere", container="densekit-x"))
    run.set_status("running")
    (row,) = list_runs(tmp_path / "runs")
    assert (row.state, row.place) == ("running?", "container densekit-x on elsewhere")
    with pytest.raises(UsageError, match="runs as container densekit-x on elsewhere: ask there"):
        stop(run, now=True)
    assert (
        "asked container densekit-x on elsewhere to stop" in stop(run, now=False)
        and run.stop_file.exists()
    )


def test_the_next_attempt_of_a_requeued_job(tmp_path: Path) -> None:
    run, _ = stub_run(tmp_path, "")
    launched = Launched(launcher="slurm", host="login", job="7")
    write_launched(run, launched)
    open_next_attempt(run.path)
    assert run.status.attempt == 1, "an attempt that did not begin is not over"
    run.set_status("running")
    open_next_attempt(run.path)
    assert run.status.attempt == 2 and read_launched(run) == launched
    run.set_status("complete")
    with pytest.raises(UsageError, match="is complete"):
        open_next_attempt(run.path)


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    run, _ = stub_run(tmp_path, "")
    write_json(run.path.with_name("other") / "math.json", "{")
    assert [row.state for row in list_runs(tmp_path / "runs")] == ["created", "damaged"]
