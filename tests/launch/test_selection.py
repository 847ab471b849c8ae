"""Which launcher, device and GPUs a run gets where the command line leaves that open."""

from pathlib import Path
from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.selection import Selection, select
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from tests.support.launching import A100, V100, cards, put_gpus_on_path

pytestmark = pytest.mark.usefixtures("bare_host")

PAPER = "vicuna7b_clip_stage2"


def selected(recipe: str = PAPER, launcher: str | None = None, **asked: Any) -> Selection:
    return select(load_recipe(recipe), ExecutionRequest(**asked), launcher=launcher)


def planned(selection: Selection, recipe: str = PAPER, **wanted: Any) -> Plan:
    """What `run` would plan from a selection."""
    return make_plan(
        load_recipe(recipe),
        selection.request.model_copy(update=wanted),
        hardware=selection.hardware,
    )


@pytest.mark.ranks
def test_gpu_host_selects_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 10))
    found = selected()
    assert (found.launcher.name, found.request.device) == ("docker", "cuda")
    assert (found.request.world_size, found.request.nodes) == (8, 1)
    assert found.hardware is not None
    assert (found.hardware.name, found.hardware.memory_mib) == ("a100-80g", 81920)
    assert found.reason.startswith(
        "launcher docker (this host has GPUs): 8 of 10 GPUs of this host (NVIDIA A100-SXM4-80GB, "
    )
    plan = planned(found)
    assert (plan.execution.dtype, plan.execution.attention, plan.fits) == ("bf16", "flash", True)
    half = planned(found, dtype="fp16")
    assert (half.execution.dtype, half.execution.attention, half.container_image) == (
        "fp16",
        "flash",
        "a100",
    ), "the image a100 has no xformers"


@pytest.mark.ranks
def test_v100_computes_in_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(V100, 2))
    stage_1 = "vicuna7b_clip_stage1"
    found = selected(stage_1)
    plan = planned(found, stage_1)
    assert (plan.gpu, plan.execution.world_size) == ("v100-32g", 2)
    assert (plan.execution.dtype, plan.execution.attention, plan.container_image) == (
        "fp16",
        "xformers",
        "v100",
    )
    assert planned(found, stage_1, dtype="fp32", micro_batch_size=1).execution.attention == "sdpa"
    with pytest.raises(UsageError, match=r"bf16 needs 8\.0; use --dtype fp16 --attention xformers"):
        planned(found, dtype="bf16")


@pytest.mark.ranks
def test_cluster_gpus_are_the_papers_or_those_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers = selected("llama3_70b_stage2_lora", launcher="slurm")
    assert papers.hardware is not None
    assert (papers.hardware.name, papers.request.world_size, papers.request.nodes) == (
        "a100-80g",
        32,
        4,
    )
    named = selected(launcher="slurm", gpu="h200", world_size=16)
    assert named.hardware is not None
    assert (named.hardware.name, named.request.world_size, named.request.nodes) == (
        "h200-141g",
        16,
        2,
    )
    assert selected(launcher="slurm", nodes=4).request.nodes == 4
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 2))
    with pytest.raises(UsageError, match="--gpu h200: this host has a100-80g; omit --gpu"):
        selected(gpu="h200")
    with pytest.raises(UsageError, match=r"--gpu h200: this run trains on the CPU \(a tiny recipe"):
        selected("tiny_stage1", gpu="h200")
    with pytest.raises(UsageError, match=r"--gpu a100 is ambiguous: .*a100-40g or a100-80g"):
        selected(gpu="a100")


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("recipe", "gpus", "variables", "asked", "launcher", "why"),
    [
        ("tiny_stage1", cards(A100, 8), {}, {}, "local", "a tiny recipe"),
        (PAPER, [], {}, {}, "local", "no GPU on this host"),
        (PAPER, cards(A100, 8), {"DENSEKIT_TARGET": "a100"}, {}, "local", "this is a container"),
        (PAPER, cards(A100, 8), {}, {"device": "cpu"}, "local", "--device cpu"),
        (PAPER, cards(A100, 8), {}, {"launcher": "local"}, "local", "as asked"),
        (PAPER, [], {}, {"launcher": "slurm"}, "slurm", "as asked"),
        (PAPER, cards(A100, 4), {"CUDA_VISIBLE_DEVICES": "1,3"}, {}, "docker", "this host has GPU"),
    ],
)
def test_launcher_and_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    gpus: list[str],
    variables: dict[str, str],
    asked: dict[str, Any],
    launcher: str,
    why: str,
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *gpus)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = selected(recipe, **asked)
    assert found.launcher.name == launcher and f"({why}" in found.reason
    if "CUDA_VISIBLE_DEVICES" in variables:
        assert found.request.world_size == 2


@pytest.mark.parametrize(
    ("launcher", "options", "message"),
    [
        ("local", {"image": "x"}, "--image: the local launcher does not .*docker or slurm"),
        ("docker", {"sbatch": ["a=1"]}, "--sbatch: the docker launcher .* --launcher slurm"),
        (None, {"queue_minutes": 5}, "--queue-minutes: the local launcher .* --launcher slurm"),
        (None, {"container": "pyxis"}, "--container: the local launcher does not take it"),
        ("slurm", {"sbatch": ["="]}, "--sbatch '=': give a long option of sbatch"),
        ("swarm", {}, "no launcher named 'swarm'; there are local, docker, slurm"),
    ],
)
def test_options_of_other_launchers_are_refused(
    launcher: str | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        select(
            load_recipe("tiny_stage1"),
            ExecutionRequest(),
            launcher=launcher,
            options=LauncherOptions(**options),
        )
