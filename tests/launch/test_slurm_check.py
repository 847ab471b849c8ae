"""What the slurm launcher checks and asks for before a job exists: host RAM, the partition, torch's
code for the GPUs. sinfo and Python are stand-ins.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.launch.launchers import torch_code
from densekit.launch.launchers.slurm import launcher, submit
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import Batch, parse_options, script
from densekit.launch.launchers.slurm.submit import refusal, without_outer_job
from densekit.launch.launchers.torch_code import check_torch_code
from densekit.planner.planning import make_plan
from densekit.planner.report import lines
from densekit.recipes.load import load_recipe
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import hardware
from tests.support.launching import stub_run

Answer = Callable[..., SimpleNamespace]


def answers(text: str, code: int = 0) -> Answer:
    """What stands in for subprocess.run."""

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        return SimpleNamespace(returncode=code, stdout=text, stderr=text)

    return run


def memory_lines(folder: Path, execution: Execution, *words: str) -> list[str]:
    run, _ = stub_run(folder, "")
    text = script(run, execution, Batch(options=parse_options(words)))
    return [line for line in text.splitlines() if line.startswith("#SBATCH --mem")]


def test_script_asks_for_the_host_ram_of_the_plan(tmp_path: Path) -> None:
    """CPU offload of a 13B model on 8 V100: hundreds of GiB, which no partition gives unasked."""
    request = ExecutionRequest(device="cuda", world_size=8)
    recipe = load_recipe("vicuna13b_clip_stage2_v100")
    plan = make_plan(recipe, request, hardware=hardware("v100-32g"))
    assert plan.execution.cpu_offload and plan.memory_gib is not None
    needed = plan.execution.host_ram_gib
    assert needed is not None and needed > 8 * (plan.memory_gib.host or 0)
    assert memory_lines(tmp_path, plan.execution) == [f"#SBATCH --mem={needed}G"]
    for asked in ("mem=0", "mem-per-cpu=8G", "mem-per-gpu=64G"):
        assert memory_lines(tmp_path, plan.execution, asked) == [f"#SBATCH --{asked}"]


def test_host_ram_is_of_one_node() -> None:
    recipe = load_recipe("vicuna7b_clip_stage2")

    def of(**asked: Any) -> int:
        request = ExecutionRequest(device="cuda", zero_stage=2, micro_batch_size=1, **asked)
        found = make_plan(recipe, request, hardware=hardware("a100-80g")).execution.host_ram_gib
        assert found is not None
        return found

    assert of(world_size=16, nodes=2) < of(world_size=16, nodes=1)
    assert of(world_size=8, workers=4) > of(world_size=8)


def test_the_copy_of_a_checkpoint_is_counted_and_said_where_it_is_too_much() -> None:
    """12 bytes of each trained weight; none of them where the states are in host RAM anyway."""
    recipe = load_recipe("vicuna7b_clip_stage2")
    request = ExecutionRequest(device="cuda", world_size=8, micro_batch_size=1)
    small = replace(hardware("a100-80g"), host_gib=128)
    plan = make_plan(recipe, request, hardware=small)
    (note,) = [note for note in plan.notes if note.startswith("host RAM")]
    assert plan.execution.host_ram_gib is not None
    found = re.match(
        r"host RAM: (\d+) GiB are needed in each node, (\d+) of them for the copy", note
    )
    assert found and int(found[1]) == plan.execution.host_ram_gib > 128
    assert 12 * 6.7e9 / 2**30 < int(found[2]) < 12 * 6.9e9 / 2**30
    offloaded = request.model_copy(update={"cpu_offload": True, "zero_stage": 3})
    (note,) = [
        note
        for note in make_plan(recipe, offloaded, hardware=small).notes
        if note.startswith("host RAM")
    ]
    assert "GiB are needed in each node; a usual node is assumed to have 128 GiB" in note
    enough = make_plan(recipe, request, hardware=hardware("a100-80g"))
    assert not [note for note in enough.notes if note.startswith("host RAM")]
    last = [list(lines(each, None, {}, why=False))[-1] for each in (plan, enough)]
    assert last[0] == f"{last[1]}; {plan.execution.host_ram_gib} GiB of host RAM a node"


def test_script_without_a_known_shape_asks_for_nothing(tmp_path: Path) -> None:
    assert memory_lines(tmp_path, Execution(device="cuda", gpu="a100-80g")) == []


def test_memory_that_no_node_has_is_refused_with_the_option() -> None:
    said = refusal("sbatch: error: Memory specification can not be satisfied\n")
    assert "--sbatch mem=..., or mem=0" in said


@pytest.mark.parametrize(
    ("asked", "listed", "code", "refused"),
    [
        ("gpu", "cpu\ngpu\n", 0, None),
        ("gpu,cpu", "cpu\ngpu\n", 0, None),
        (
            "gpus",
            "cpu\ngpu\n",
            0,
            "=gpus: no partition is named gpus; there are cpu, gpu",
        ),
        ("gpu,big", "cpu\ngpu\n", 0, "no partition is named big"),
        ("gpus", "sinfo: error", 1, None),
    ],
)
def test_partition_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, asked: str, listed: str, code: int, refused: str | None
) -> None:
    monkeypatch.setattr(launcher.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(submit.subprocess, "run", answers(listed, code))
    slurm = Slurm(batch=Batch(options=parse_options([f"partition={asked}"])))
    if refused is None:
        slurm.check(Execution())
        return
    with pytest.raises(UsageError, match=refused):
        slurm.check(Execution())


BUILT = "2.8.0 sm_75 sm_80 sm_86 sm_90 compute_90"


@pytest.mark.parametrize(
    ("gpu", "printed", "code", "refused"),
    [
        ("a100-80g", BUILT, 0, None),
        ("v100-32g", BUILT, 0, r"torch 2.8.0 of .* none for v100-32g \(sm_70\).*--container pyxis"),
        ("v100-32g", "2.7.0 sm_70 sm_80", 0, None),
        (None, BUILT, 0, None),
        (None, "2.13.0+cpu \n", 0, r"torch 2.13.0\+cpu of .* has no CUDA"),
        ("a100-80g", "ModuleNotFoundError: No module named 'torch'", 1, "cannot import torch"),
    ],
)
def test_torch_without_code_for_the_gpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpu: str | None, printed: str, code: int, refused: str | None
) -> None:
    monkeypatch.setattr(torch_code.subprocess, "run", answers(printed, code))
    if refused is None:
        check_torch_code(gpu)
        return
    with pytest.raises(UsageError, match=refused):
        check_torch_code(gpu)


def test_torch_is_asked_where_no_container_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(launcher, "check_torch_code", asked.append)
    monkeypatch.setattr(launcher.shutil, "which", lambda name: f"/usr/bin/{name}")
    on_gpu = Execution(device="cuda", gpu="v100-32g")
    Slurm(batch=Batch(runtime="apptainer", image="x.sif")).check(on_gpu)
    Slurm().check(Execution())
    assert asked == []
    Slurm().check(on_gpu)
    assert asked == ["v100-32g"]


def test_missing_time_limit_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher.shutil, "which", lambda name: f"/usr/bin/{name}")
    Slurm(batch=Batch(options=parse_options(["time=1:00:00"]))).check(Execution())
    assert capsys.readouterr().err == ""
    Slurm().check(Execution())
    assert "--sbatch time=24:00:00" in capsys.readouterr().err


def test_variables_of_an_outer_job_stay_outside() -> None:
    """A driver that is itself a job, requeued, of an array."""
    inside = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_RESTART_COUNT": "1",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_MEM_PER_CPU": "1000",
        "SBATCH_OUTPUT": "x",
        "SBATCH_ACCOUNT": "vision",
        "PATH": "/usr/bin",
    }
    assert {*without_outer_job(inside)} == {"SLURM_CONF", "SBATCH_ACCOUNT", "PATH"}


@pytest.mark.ranks
def test_this_python_says_what_its_torch_was_built_for() -> None:
    version, *archs = torch_code._built_for()
    command = [torch_code.sys.executable, "-c", "import torch; print(torch.version.cuda)"]
    cuda = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert version[0].isdigit() and bool(archs) == (cuda != "None")
