"""GPUs of one kind on some nodes, and how much of their memory a plan may fill."""

from dataclasses import dataclass

from densekit.errors import UsageError
from densekit.planner.memory import Memory
from densekit.spec.hardware import BY_NAME, GIB, Hardware

USABLE = 0.95
"""Share of a GPU's memory that a worst-case micro-batch may fill: the driver keeps some, and no
allocator packs perfectly.
"""
HOST_USABLE = 0.8
"""Share of a node's RAM that CPU offload may fill."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """`world_size` GPUs, the same number in every node."""

    hardware: Hardware
    world_size: int
    nodes: int

    def __str__(self) -> str:
        """As options of `densekit plan`; a card that is not in the table cannot be a --gpu."""
        if self.hardware.name not in BY_NAME:
            nodes = f" on {self.nodes} nodes" if self.nodes > 1 else ""
            return f"{self.world_size} x {self.hardware.name}{nodes}"
        nodes = f" --nodes {self.nodes}" if self.nodes > 1 else ""
        return f"--gpu {self.hardware.name} --gpus {self.world_size}{nodes}"

    def excess(self, memory: Memory) -> float:
        """Bytes beyond what may be filled, on the GPU or in the node; 0 or less where it fits."""
        in_node = memory.host * -(-self.world_size // self.nodes)
        return max(
            memory.peak - USABLE * self.hardware.memory,
            in_node - HOST_USABLE * self.hardware.host_gib * GIB,
        )


def usual_nodes(hardware: Hardware, world_size: int) -> int:
    """The fewest nodes of this kind that hold `world_size` GPUs evenly."""
    nodes = max(1, -(-world_size // hardware.per_node))
    while world_size % nodes:
        nodes += 1
    return nodes


def check_cluster(world_size: int, nodes: int, *, recipe: str, global_batch_size: int) -> None:
    """Raises UsageError for more processes than samples in a step, and for uneven nodes."""
    total = global_batch_size
    if not 1 <= world_size <= total:
        nearest, share = (1, total) if world_size < 1 else (total, 1)
        samples = f"{share} sample{'s' if share > 1 else ''}"
        raise UsageError(
            f"--gpus {world_size}: {recipe} feeds {total} samples per step, so it runs on 1 to "
            f"{total} processes; use --gpus {nearest} ({samples} each)"
        )
    if nodes < 1 or world_size % nodes:
        counts = range(1, max(2, min(nodes, world_size) + 1))
        nearest = max(count for count in counts if world_size % count == 0)
        raise UsageError(
            f"--nodes {nodes}: --gpus {world_size} is not a multiple of it, and every node runs "
            f"the same number of processes; use --nodes {nearest}"
        )
