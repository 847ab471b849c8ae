"""The GPU of this process, as the hardware table knows it."""

import torch

from densekit.spec.hardware import MIB, Hardware, found_hardware


def here(device: str) -> Hardware | None:
    """Its row, or the nearest one; None on a CPU."""
    if device == "cpu":
        return None
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return found_hardware(name, capability, usable_bytes() // MIB)


def usable_bytes() -> int:
    """Memory of the GPU."""
    return torch.cuda.mem_get_info()[1]
