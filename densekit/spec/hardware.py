"""The GPUs that a plan can be made for: memory, speed, links and node, each with its source."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from densekit.errors import UsageError
from densekit.spec.capability import Capability
from densekit.spec.types import Dtype

GIB = 2**30
MIB = 2**20


Efficiency = tuple[float, float]
"""Lowest and highest share of a GPU's peak that training reaches."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of GPU, in the machine that its vendor builds around it."""

    name: str
    pattern: str
    """Matches its name in nvidia-smi, as a regular expression."""
    capability: Capability
    memory_mib: int
    """What nvidia-smi calls memory.total."""
    flops: Mapping[Dtype, float]
    """Dense peak, FLOP/s; of the tensor cores where they have the dtype."""
    link: float
    """Between the GPUs of a node, bytes/s of one GPU in one direction."""
    link_name: str = "NVLink"
    pcie_link: float
    """Bytes/s of its PCIe, 16 lanes in one direction: the link of a card without NVLink."""
    pcie_peak: float | None = None
    """Dense peak of its PCIe card in half precision, where that is not that of `flops`."""
    network: float
    """Between nodes, bytes/s for each GPU in one direction."""
    per_node: int = 8
    """GPUs of a usual node."""
    host_gib: int
    """Host RAM of a node: of a usual one, or as measured."""
    host_measured: bool = False
    """Whether `host_gib` is that of this host."""
    efficiency: Efficiency
    """Of training; docs/planner.md, "Hours", says where each interval comes from."""
    planned_only: bool = False
    """Plans can be made for it, and densekit was never tried on its generation; plans for other
    kinds do not advise it.
    """
    source: str

    @property
    def memory(self) -> int:
        """Bytes of one GPU."""
        return self.memory_mib * MIB


# One for each chip; a card of a known chip is one line of HARDWARE.
_V100 = partial(
    Hardware,
    capability=(7, 0),
    flops={"fp16": 125e12, "fp32": 15.7e12},
    link=150e9,
    pcie_link=16e9,
    pcie_peak=112e12,
    network=6.25e9,
    host_gib=512,
    efficiency=(0.10, 0.40),
    source="NVIDIA V100 data sheet (2020), SXM2; node: DGX-1",
)
_A100 = partial(
    Hardware,
    capability=(8, 0),
    flops={"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12},
    link=300e9,
    pcie_link=32e9,
    network=25e9,
    efficiency=(0.20, 0.60),
)
_H100 = partial(
    Hardware,
    capability=(9, 0),
    flops={"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    link=450e9,
    pcie_link=64e9,
    network=50e9,
    host_gib=2048,
    efficiency=(0.15, 0.50),
)
_ADA = partial(
    Hardware,
    capability=(8, 9),
    link=32e9,
    link_name="PCIe 4.0",
    pcie_link=32e9,
    efficiency=(0.10, 0.50),
)
_AMPERE_CARD = partial(
    Hardware,
    capability=(8, 6),
    link=32e9,
    link_name="PCIe 4.0",
    pcie_link=32e9,
    network=6.25e9,
    host_gib=512,
    efficiency=(0.10, 0.50),
    planned_only=True,
)
HARDWARE = (
    _A100(
        name="a100-40g",
        pattern="A100.*40",
        memory_mib=40960,
        host_gib=1024,
        source="NVIDIA A100 data sheet (2021), SXM4; node: DGX A100 320 GB",
    ),
    _A100(
        name="a100-80g",
        pattern="A100.*80|A800",
        memory_mib=81920,
        host_gib=2048,
        source="NVIDIA A100 data sheet (2021), SXM4; node: DGX A100 640 GB",
    ),
    _V100(name="v100-16g", pattern="V100.*16", memory_mib=16384),
    _V100(name="v100-32g", pattern="V100.*32", memory_mib=32768),
    _H100(
        name="h100-80g",
        pattern="H100|H800",
        memory_mib=81559,
        pcie_peak=756e12,
        source="NVIDIA H100 data sheet (2023), SXM5; node: DGX H100",
    ),
    _H100(
        name="h200-141g",
        pattern="H200",
        memory_mib=143771,
        source="NVIDIA H200 data sheet (2024), SXM5; node: DGX H200",
    ),
    _ADA(
        name="l40s-48g",
        pattern="L40S",
        memory_mib=46068,
        flops={"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},
        network=6.25e9,
        host_gib=512,
        source="NVIDIA L40S data sheet (2023); node: assumed, 8 cards and 512 GiB",
    ),
    _ADA(
        name="rtx4090-24g",
        pattern="RTX 4090",
        memory_mib=24564,
        flops={"bf16": 165.2e12, "fp16": 165.2e12, "fp32": 82.6e12},
        network=1.25e9,
        host_gib=128,
        source="NVIDIA Ada whitepaper (2022), with fp32 accumulation; "
        "node: assumed, 8 cards and 128 GiB",
    ),
    _AMPERE_CARD(
        name="a6000-48g",
        pattern="RTX A6000",
        memory_mib=49140,
        flops={"bf16": 154.8e12, "fp16": 154.8e12, "fp32": 38.7e12},
        source="NVIDIA RTX A6000 data sheet (2021); node: assumed, 8 cards and 512 GiB",
    ),
    _AMPERE_CARD(
        name="a10-24g",
        pattern=r"A10\b",
        memory_mib=23028,
        flops={"bf16": 125e12, "fp16": 125e12, "fp32": 31.2e12},
        source="NVIDIA A10 data sheet (2021); node: assumed, 8 cards and 512 GiB",
    ),
    Hardware(
        name="t4-16g",
        pattern=r"\bT4\b",
        capability=(7, 5),
        memory_mib=15360,
        flops={"fp16": 65e12, "fp32": 8.1e12},
        link=16e9,
        link_name="PCIe 3.0",
        pcie_link=16e9,
        network=6.25e9,
        host_gib=256,
        efficiency=(0.10, 0.40),
        planned_only=True,
        source="NVIDIA T4 data sheet (2019); node: assumed, 8 cards and 256 GiB",
    ),
    Hardware(
        name="b200-180g",
        pattern="B200",
        capability=(10, 0),
        memory_mib=182630,
        flops={"bf16": 2250e12, "fp16": 2250e12, "fp32": 80e12},
        link=900e9,
        pcie_link=64e9,
        network=50e9,
        host_gib=2048,
        efficiency=(0.10, 0.50),
        planned_only=True,
        source="NVIDIA Blackwell architecture brief (2024), HGX B200; memory: as CUDA reports it; "
        "node: DGX B200",
    ),
    Hardware(
        name="rtx5090-32g",
        pattern="RTX 5090",
        capability=(12, 0),
        memory_mib=32607,
        flops={"bf16": 209.5e12, "fp16": 209.5e12, "fp32": 104.8e12},
        link=64e9,
        link_name="PCIe 5.0",
        pcie_link=64e9,
        network=1.25e9,
        host_gib=128,
        efficiency=(0.10, 0.50),
        planned_only=True,
        source="NVIDIA RTX Blackwell whitepaper (2025), with fp32 accumulation; "
        "node: assumed, 8 cards and 128 GiB",
    ),
)
EXPORT_LINK = 200e9
"""Bytes/s of NVLink in one direction on an A800 or H800, which are slower in nothing else."""
BY_NAME = {row.name: row for row in HARDWARE}
ADVISED = tuple(row for row in HARDWARE if not row.planned_only)
"""The kinds that a plan may advise instead of the one asked for."""
VENDOR_WORDS = re.compile(r"^(nvidia|tesla|geforce|sxm\d?|gpu)$")
"""Words of a card's full name that choose nothing here. PCIe does: it is a slower card."""
MEMORY_WORD = re.compile(r"^(\d+)(?:g|gb|gib)$")


def hardware(name: str, field: str = "--gpu") -> Hardware:
    """The row of a name as people type it: of the table, the part of one that only one row has
    (`h200`), or a vendor's (`V100-32GB`, `RTX 4090`, `NVIDIA A100-SXM4-80GB`).

    Raises UsageError for an unknown or ambiguous name; it begins with `field`, the option or the
    recipe's field that gives the name.
    """
    wanted = name.strip().lower()
    if wanted in BY_NAME:
        return BY_NAME[wanted]
    chip, memory = _chip_and_memory(wanted)
    of_chip = [row.name for row in HARDWARE if row.name.partition("-")[0] in (chip, f"rtx{chip}")]
    of_chip = of_chip or [
        row for row in BY_NAME if row.partition("-")[0] == chip.removeprefix("rtx")
    ]
    rows = [row for row in of_chip if memory in (None, row.partition("-")[2])]
    if len(rows) == 1:
        return BY_NAME[rows[0]]
    if rows:
        raise UsageError(f"{field} {name} is ambiguous: name its memory too, {' or '.join(rows)}")
    close = of_chip or [row for row in BY_NAME if wanted and row.startswith(wanted)]
    close = close or difflib.get_close_matches(wanted, BY_NAME, n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(f"{field} {name}: unknown GPU; {hint}known: {', '.join(BY_NAME)}, cpu")


def _chip_and_memory(name: str) -> tuple[str, str | None]:
    """`v100`, `32g` of `nvidia tesla v100-32gb`; None where the name does not say the memory."""
    words = [word for word in re.split(r"[\s_-]+", name) if not VENDOR_WORDS.match(word)]
    found = MEMORY_WORD.match(words[-1]) if len(words) > 1 else None
    chip = "".join(words[:-1] if found else words)
    return chip, f"{found[1]}g" if found else None


def found_hardware(name: str, capability: Capability, memory_mib: int) -> Hardware:
    """The row of a GPU that nvidia-smi reports, with its real memory and this host's RAM.

    A card that no row matches is planned by its memory, with the speed of the row that is nearest
    to it by compute capability and then by memory; its name is then its own.
    """
    host_gib = host_memory() // GIB
    row = named_hardware(name)
    if row is not None and "PCI" in name.upper():
        half = {dtype: row.pcie_peak or peak for dtype, peak in row.flops.items()}
        flops = {**half, "fp32": row.flops["fp32"]}
        row = replace(row, link=row.pcie_link, link_name="PCIe", flops=flops)
    elif row is not None and "800" in name:
        row = replace(row, link=EXPORT_LINK)
    if row is not None and abs(row.memory_mib - memory_mib) <= 0.1 * memory_mib:
        return replace(row, memory_mib=memory_mib, host_gib=host_gib, host_measured=True)
    nearest = min(HARDWARE, key=lambda row: _distance(row, capability, memory_mib))
    return replace(
        nearest,
        name=name,
        capability=capability,
        memory_mib=memory_mib,
        host_gib=host_gib,
        host_measured=True,
        source=f"memory: nvidia-smi; speed assumed to be that of {nearest.name}",
    )


def _distance(row: Hardware, capability: Capability, memory_mib: int) -> tuple[float, int]:
    (major, minor), (other_major, other_minor) = row.capability, capability
    apart = abs(major + minor / 10 - other_major - other_minor / 10)
    return apart, abs(row.memory_mib - memory_mib)


def named_hardware(name: str) -> Hardware | None:
    """The row of a name that nvidia-smi or torch reports."""
    return next((row for row in HARDWARE if re.search(row.pattern, name, re.IGNORECASE)), None)


def host_memory() -> int:
    """Bytes of this host's RAM."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
