"""The table of GPUs: names, what nvidia-smi reports, container image and kernels of each row."""

import re

import pytest

from densekit.errors import UsageError
from densekit.planner.cluster import usual_nodes
from densekit.spec.capability import container_image_for, generation_of
from densekit.spec.hardware import (
    ADVISED,
    BY_NAME,
    EXPORT_LINK,
    HARDWARE,
    Hardware,
    found_hardware,
    hardware,
    host_memory,
    named_hardware,
)


@pytest.mark.parametrize("row", HARDWARE, ids=lambda row: row.name)
def test_every_row_has_dtype_image_and_source(row: Hardware) -> None:
    generation = generation_of(row.capability)
    assert generation.dtype in row.flops and "fp32" in row.flops
    assert row.planned_only or container_image_for(row.capability) is generation
    named = re.fullmatch(r"[a-z0-9]+-(\d+)g", row.name)
    assert named and abs(row.memory_mib / 1024 - int(named[1])) <= 0.07 * int(named[1])
    assert 0 < row.efficiency[0] < row.efficiency[1] < 1 and re.search(r"\(20\d\d\)", row.source)
    assert row.flops[generation.dtype] > row.flops["fp32"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("h200", "h200-141g"),
        ("H100", "h100-80g"),
        ("l40s", "l40s-48g"),
        ("rtx4090", "rtx4090-24g"),
        ("V100-32GB", "v100-32g"),
        ("v100 16gb", "v100-16g"),
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("A100_40GiB", "a100-40g"),
        ("RTX 4090", "rtx4090-24g"),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24g"),
        ("4090", "rtx4090-24g"),
        ("rtx-5090", "rtx5090-32g"),
        ("RTX A6000", "a6000-48g"),
        ("B200", "b200-180g"),
        ("T4", "t4-16g"),
        ("a10", "a10-24g"),
        *((name, name) for name in BY_NAME),
    ],
)
def test_short_names_are_accepted(asked: str, name: str) -> None:
    assert hardware(asked).name == name


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("a100", "--gpu a100 is ambiguous: name its memory too, a100-40g or a100-80g"),
        ("v100", "ambiguous: name its memory too, v100-16g or v100-32g"),
        ("a100-81g", "unknown GPU; did you mean a100-40g or a100-80g"),
        ("A100-64GB", "unknown GPU; did you mean a100-40g or a100-80g"),
        ("A100-PCIE-80GB", "unknown GPU; did you mean a100-80g"),
        ("32gb", "unknown GPU"),
        ("", "unknown GPU"),
        ("NVIDIA", "unknown GPU"),
        ("a100-40", r"unknown GPU; did you mean a100-40g\? known"),
        ("tpu", "unknown GPU; .*known: a100-40g, .*rtx5090-32g, cpu"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused(asked: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hardware(asked)


@pytest.mark.parametrize(
    ("reported", "memory_mib", "name"),
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
        ("NVIDIA RTX A6000", 49140, "a6000-48g"),
        ("NVIDIA A10", 23028, "a10-24g"),
        ("Tesla T4", 15360, "t4-16g"),
        ("NVIDIA B200", 182630, "b200-180g"),
        ("NVIDIA GeForce RTX 5090", 32607, "rtx5090-32g"),
    ],
)
def test_nvidia_smi_names_are_found(reported: str, memory_mib: int, name: str) -> None:
    found = found_hardware(reported, BY_NAME[name].capability, memory_mib)
    assert (found.name, found.memory_mib) == (name, memory_mib), "the real memory counts"
    assert found.host_gib == host_memory() // 2**30


def test_unknown_card_is_planned_by_its_own_memory() -> None:
    found = found_hardware("NVIDIA A40", (8, 6), 46068)
    assert (found.name, found.memory_mib, found.capability) == ("NVIDIA A40", 46068, (8, 6))
    assert (
        found.flops == BY_NAME["a6000-48g"].flops
        and "speed assumed to be that of a6000-48g" in found.source
    )
    nvl = found_hardware("NVIDIA H100 NVL", (9, 0), 95830)
    assert nvl.name == "NVIDIA H100 NVL" and nvl.memory_mib == 95830, (
        "more memory than its namesake in the table"
    )
    assert named_hardware("Quadro RTX 8000") is None
    assert named_hardware("NVIDIA A10G") is None


def test_eight_consumer_cards_are_one_node() -> None:
    assert usual_nodes(hardware("RTX 4090"), 8) == 1
    assert usual_nodes(hardware("RTX 4090"), 16) == 2


def test_kinds_that_nobody_tried_are_not_advised() -> None:
    untried = {row.name for row in HARDWARE} - {row.name for row in ADVISED}
    assert untried == {"a6000-48g", "a10-24g", "t4-16g", "b200-180g", "rtx5090-32g"}


def test_pcie_and_export_cards_have_slower_links() -> None:
    a100 = found_hardware("NVIDIA A100-PCIE-40GB", (8, 0), 40960)
    assert (a100.name, a100.link_name, a100.link) == ("a100-40g", "PCIe", 32e9)
    assert a100.flops == BY_NAME["a100-40g"].flops
    h100 = found_hardware("NVIDIA H100 PCIe", (9, 0), 81559)
    assert (h100.link, h100.flops["bf16"], h100.flops["fp32"]) == (64e9, 756e12, 67e12)
    v100 = found_hardware("Tesla V100-PCIE-16GB", (7, 0), 16160)
    assert (v100.link, v100.flops["fp16"]) == (16e9, 112e12)
    a800 = found_hardware("NVIDIA A800-SXM4-80GB", (8, 0), 81920)
    assert (a800.name, a800.link) == ("a100-80g", EXPORT_LINK)
