"""The table of GPUs: names, what nvidia-smi tells, and the images and kernels that suit each row."""

import re

import pytest

from densekit.errors import UsageError
from densekit.planner.request import target_of
from densekit.planner.search import usual_nodes
from densekit.recipes.load import load_recipe
from densekit.spec.capability import image_for, suited
from densekit.spec.hardware import (
    BY_NAME,
    HARDWARE,
    Hardware,
    found_hardware,
    hardware,
    host_memory,
    named_hardware,
)


@pytest.mark.parametrize("row", HARDWARE, ids=lambda row: row.name)
def test_every_row_can_be_planned_for(row: Hardware) -> None:
    kernel = suited(row.capability)
    assert kernel.dtype in row.flops and "fp32" in row.flops
    target = image_for(row.capability)
    assert target is not None and target.name == ("v100" if row.capability == (7, 0) else "a100")
    named = re.fullmatch(r"[a-z0-9]+-(\d+)g", row.name)
    assert named and abs(row.memory_mib / 1024 - int(named[1])) <= 0.07 * int(named[1])
    assert 0 < row.efficiency[0] < row.efficiency[1] < 1 and re.search(r"\(20\d\d\)", row.source)
    assert row.flops[kernel.dtype] > row.flops["fp32"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("h200", "h200-141g"),
        ("H100", "h100-80g"),
        ("l40s", "l40s-48g"),
        ("rtx4090", "rtx4090-24g"),
        *((name, name) for name in BY_NAME),
    ],
)
def test_names(asked: str, name: str) -> None:
    assert hardware(asked).name == name


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("a100", "--gpu a100: which of a100-40g and a100-80g"),
        ("v100", "which of v100-16g and v100-32g"),
        ("a100-81g", "did you mean a100-80g"),
        ("tpu", "All: a100-40g, .*rtx4090-24g"),
    ],
)
def test_names_that_are_none(asked: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hardware(asked)


@pytest.mark.parametrize(
    ("told", "memory_mib", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80g"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", 40536, "a100-40g"),
        ("Tesla V100-SXM2-32GB", 32510, "v100-32g"),
        ("Tesla V100-SXM2-16GB", 16160, "v100-16g"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-80g"),
        ("NVIDIA H200", 143771, "h200-141g"),
        ("NVIDIA L40S", 46068, "l40s-48g"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx4090-24g"),
    ],
)
def test_what_nvidia_smi_tells_is_found(told: str, memory_mib: int, name: str) -> None:
    found = found_hardware(told, BY_NAME[name].capability, memory_mib)
    assert (found.name, found.memory_mib) == (name, memory_mib), "the real memory counts"
    assert found.host_gib == host_memory() // 2**30


def test_a_card_of_no_row_is_planned_by_its_own_memory() -> None:
    found = found_hardware("NVIDIA RTX A6000", (8, 6), 49140)
    assert (found.name, found.memory_mib, found.capability) == ("NVIDIA RTX A6000", 49140, (8, 6))
    assert (
        found.flops == BY_NAME["l40s-48g"].flops
        and "speed assumed to be that of l40s-48g" in found.source
    )
    nvl = found_hardware("NVIDIA H100 NVL", (9, 0), 95830)
    assert nvl.name == "NVIDIA H100 NVL" and nvl.memory_mib == 95830, (
        "more memory than its namesake in the table"
    )
    assert named_hardware("Tesla T4") is None
    card = found_hardware("NVIDIA A100-PCIE-40GB", (8, 0), 40960)
    assert (card.name, card.link_name) == ("a100-40g", "PCIe") and card.link < BY_NAME[
        "a100-40g"
    ].link / 5


@pytest.mark.parametrize(
    ("gpus", "nodes"), [(0, 1), (1, 1), (8, 1), (9, 3), (11, 11), (12, 2), (16, 2), (32, 4)]
)
def test_usual_nodes(gpus: int, nodes: int) -> None:
    assert usual_nodes(BY_NAME["a100-80g"], gpus) == nodes


def test_what_a_plan_is_made_for() -> None:
    paper = load_recipe("llama3_70b_stage2_lora")
    target = target_of(paper)
    assert target.hardware is BY_NAME["a100-80g"] and (
        target.gpus,
        target.nodes,
        target.papers,
    ) == (32, 4, True)
    fewer = target_of(paper, gpus=12)
    assert (fewer.gpus, fewer.nodes, fewer.papers) == (12, 2, True)
    other = target_of(paper, gpu="v100-32g", nodes=8)
    assert other.hardware is BY_NAME["v100-32g"] and (other.gpus, other.nodes, other.papers) == (
        32,
        8,
        False,
    )
    tiny = load_recipe("tiny_stage1")
    for cpu in (target_of(tiny), target_of(paper, device="cpu"), target_of(paper, gpu="cpu")):
        assert (cpu.device, cpu.hardware, cpu.gpus, cpu.papers) == ("cpu", None, 1, False)
    unknown = target_of(load_recipe("tiny_stage1", ["hardware=null"]), device="cuda")
    assert (unknown.device, unknown.hardware) == ("cuda", None)
