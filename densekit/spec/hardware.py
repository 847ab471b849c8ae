"""The GPUs that a plan can be made for: memory, speed and what connects them, each with its source."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from densekit.errors import UsageError
from densekit.spec.capability import Capability
from densekit.spec.types import Dtype

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of GPU, in the machine that its vendor builds around it."""

    name: str
    names: str
    """What its name looks like in nvidia-smi, as a regular expression."""
    capability: Capability
    memory_mib: int
    """What nvidia-smi calls memory.total."""
    flops: Mapping[Dtype, float]
    """Dense peak, FLOP/s; the matrix units where the number type has some."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """Between the GPUs of a node, bytes/s of one GPU in one direction."""
    link_name: str
    network: float
    """Between nodes, bytes/s for each GPU in one direction."""
    per_node: int
    """GPUs of a usual node."""
    host_gib: int
    """Main memory of a usual node."""
    efficiency: tuple[float, float]
    """Share of the peak that training reaches, low and high (docs/planner.md, "Hours")."""
    source: str

    @property
    def memory(self) -> int:
        """Bytes of one GPU."""
        return self.memory_mib * MIB


# Efficiency: docs/planner.md says where each interval comes from.
_A100: dict[Dtype, float] = {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}
_H100: dict[Dtype, float] = {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}
_V100: dict[Dtype, float] = {"fp16": 125e12, "fp32": 15.7e12}
HARDWARE = (
    Hardware(
        name="a100-40g",
        names="A100.*40",
        capability=(8, 0),
        memory_mib=40960,
        flops=_A100,
        bandwidth=1.555e12,
        link=300e9,
        link_name="NVLink",
        network=25e9,
        per_node=8,
        host_gib=1024,
        efficiency=(0.20, 0.60),
        source="NVIDIA A100 data sheet (2021), SXM4; node: DGX A100 320 GB",
    ),
    Hardware(
        name="a100-80g",
        names="A100.*80|A800",
        capability=(8, 0),
        memory_mib=81920,
        flops=_A100,
        bandwidth=2.039e12,
        link=300e9,
        link_name="NVLink",
        network=25e9,
        per_node=8,
        host_gib=2048,
        efficiency=(0.20, 0.60),
        source="NVIDIA A100 data sheet (2021), SXM4; node: DGX A100 640 GB",
    ),
    Hardware(
        name="v100-16g",
        names="V100.*16",
        capability=(7, 0),
        memory_mib=16384,
        flops=_V100,
        bandwidth=0.9e12,
        link=150e9,
        link_name="NVLink",
        network=6.25e9,
        per_node=8,
        host_gib=512,
        efficiency=(0.10, 0.40),
        source="NVIDIA V100 data sheet (2020), SXM2; node: DGX-1",
    ),
    Hardware(
        name="v100-32g",
        names="V100.*32",
        capability=(7, 0),
        memory_mib=32768,
        flops=_V100,
        bandwidth=0.9e12,
        link=150e9,
        link_name="NVLink",
        network=6.25e9,
        per_node=8,
        host_gib=512,
        efficiency=(0.10, 0.40),
        source="NVIDIA V100 data sheet (2020), SXM2; node: DGX-1",
    ),
    Hardware(
        name="h100-80g",
        names="H100|H800",
        capability=(9, 0),
        memory_mib=81559,
        flops=_H100,
        bandwidth=3.35e12,
        link=450e9,
        link_name="NVLink",
        network=50e9,
        per_node=8,
        host_gib=2048,
        efficiency=(0.15, 0.50),
        source="NVIDIA H100 data sheet (2023), SXM5; node: DGX H100",
    ),
    Hardware(
        name="h200-141g",
        names="H200",
        capability=(9, 0),
        memory_mib=143771,
        flops=_H100,
        bandwidth=4.8e12,
        link=450e9,
        link_name="NVLink",
        network=50e9,
        per_node=8,
        host_gib=2048,
        efficiency=(0.15, 0.50),
        source="NVIDIA H200 data sheet (2024), SXM5; node: DGX H200",
    ),
    Hardware(
        name="l40s-48g",
        names="L40S",
        capability=(8, 9),
        memory_mib=46068,
        bandwidth=0.864e12,
        flops={"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},
        link=32e9,
        link_name="PCIe 4.0",
        network=6.25e9,
        per_node=8,
        host_gib=512,
        efficiency=(0.10, 0.50),
        source="NVIDIA L40S data sheet (2023); node: assumed, 8 cards and 512 GiB",
    ),
    Hardware(
        name="rtx4090-24g",
        names="RTX 4090",
        capability=(8, 9),
        memory_mib=24564,
        bandwidth=1.008e12,
        flops={"bf16": 165.2e12, "fp16": 165.2e12, "fp32": 82.6e12},
        link=32e9,
        link_name="PCIe 4.0",
        network=1.25e9,
        per_node=4,
        host_gib=128,
        efficiency=(0.10, 0.50),
        source="NVIDIA Ada whitepaper (2022), with fp32 accumulation; node: assumed, 4 cards and 128 GiB",
    ),
)
PCIE_PEAKS: Mapping[str, float] = {"h100-80g": 756e12, "v100-16g": 112e12, "v100-32g": 112e12}
"""Dense peak in half precision of the PCIe cards, where it is not that of the others (NVIDIA's data
sheets).
"""
EXPORT_LINK = 200e9
"""Bytes/s of NVLink in one direction on an A800 or H800, which are slower in nothing else."""
PCIE_LINKS = {7: 16e9, 8: 32e9, 9: 64e9}
"""Bytes/s of a card without NVLink by the major number of its compute capability: PCIe 3.0, 4.0,
5.0, 16 lanes.
"""
BY_NAME = {row.name: row for row in HARDWARE}


def hardware(name: str, asked: str = "--gpu") -> Hardware:
    """The row of a name, or of the part of one that only one row has (`h200`, `rtx4090`); `asked`:
    who gives the name.

    Raises UsageError for a name that is none, or that several rows share.
    """
    wanted = name.strip().lower()
    if wanted in BY_NAME:
        return BY_NAME[wanted]
    rows = [row.name for row in HARDWARE if row.name.startswith(f"{wanted}-")]
    if len(rows) == 1:
        return BY_NAME[rows[0]]
    if rows:
        raise UsageError(
            f"{asked} {name}: which of {' and '.join(rows)}? Say how much memory it has"
        )
    near = difflib.get_close_matches(wanted, BY_NAME, n=3, cutoff=0.3)
    known = f"did you mean {' or '.join(near)}?" if near else "none is close;"
    raise UsageError(
        f"{asked} {name}: no such GPU is known; {known} All: {', '.join(BY_NAME)}, cpu"
    )


def found_hardware(name: str, capability: Capability, memory_mib: int) -> Hardware:
    """The row of a GPU that nvidia-smi tells of, with its real memory and the main memory of this
    host.

    A card that no row names is planned by its memory, with the speed of the row that is nearest to
    it by compute capability and then by memory; its name is then its own.
    """

    def distance(row: Hardware) -> tuple[float, float]:
        (major, minor), (ours, our_minor) = row.capability, capability
        return abs(major + minor / 10 - ours - our_minor / 10), abs(row.memory_mib - memory_mib)

    host_gib = host_memory() // GIB
    named = named_hardware(name)
    if named is not None and "PCI" in name.upper():
        peak = PCIE_PEAKS.get(named.name)
        flops = {
            dtype: peak if peak and dtype != "fp32" else value
            for dtype, value in named.flops.items()
        }
        named = replace(named, link=PCIE_LINKS[capability[0]], link_name="PCIe", flops=flops)
    elif named is not None and "800" in name:
        named = replace(named, link=EXPORT_LINK)
    if named is not None and abs(named.memory_mib - memory_mib) <= 0.1 * memory_mib:
        return replace(named, memory_mib=memory_mib, host_gib=host_gib)
    nearest = min(HARDWARE, key=distance)
    source = f"memory: nvidia-smi; speed assumed to be that of {nearest.name}"
    return replace(
        nearest,
        name=name,
        capability=capability,
        memory_mib=memory_mib,
        host_gib=host_gib,
        source=source,
    )


def named_hardware(name: str) -> Hardware | None:
    """The row of a name that nvidia-smi or torch tells."""
    return next((row for row in HARDWARE if re.search(row.names, name, re.IGNORECASE)), None)


def host_memory() -> int:
    """Bytes of this host's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
