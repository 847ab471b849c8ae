"""What share of a GPU's peak earlier runs reached, from their metrics: it replaces the published
interval.
"""

import statistics
from pathlib import Path
from typing import Any

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json, read_jsonl
from densekit.planner.flops import flops_of
from densekit.planner.lengths import Sample
from densekit.runs.layout import RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import METRICS_FILE
from densekit.spec.architectures import shape_of
from densekit.spec.execution import Execution
from densekit.spec.hardware import named_hardware

WARM_UP = 10
"""Steps of a run that are not counted: kernels are chosen and memory is allocated in them."""
STEPS = 20
"""Steps after them that a run must have."""
MARGIN = 0.1
"""What another run of the same kind may differ by."""


Efficiency = tuple[float, float]


def measured_efficiency(runs_dir: Path) -> dict[str, Efficiency]:
    """(low, high) share of the peak that runs reached, by kind of GPU; a run that cannot be read
    counts as none.
    """
    reached: dict[str, list[float]] = {}
    for path in sorted(runs_dir.glob(f"*/{MANIFEST_FILE}")):
        try:
            found = _efficiency(path.parent, read_json(path))
        except (DataError, UsageError, LookupError, TypeError, ValueError, ArithmeticError):
            continue
        if found is not None:
            reached.setdefault(found[0], []).append(found[1])
    return {
        kind: (min(some) * (1 - MARGIN), max(some) * (1 + MARGIN)) for kind, some in reached.items()
    }


def _efficiency(run: Path, manifest: dict[str, Any]) -> tuple[str, float] | None:
    """Kind of GPU and share of its peak, of a complete run on GPUs of the table without offload."""
    devices = manifest["environment"]["devices"]
    execution = Execution.from_json(manifest["execution"], source=str(run / MANIFEST_FILE))
    if (
        manifest["state"] != "complete"
        or not devices
        or execution.device != "cuda"
        or execution.cpu_offload
    ):
        return None
    hardware = named_hardware(devices[0]["name"])
    if hardware is None:
        return None
    math = RunDir(run).math.recipe
    if math.assets is not None:
        return None  # too small to say anything of a GPU
    shape = shape_of(math, execution.roots)
    records = read_jsonl(run / METRICS_FILE)[WARM_UP:]
    if len(records) < STEPS:
        return None
    samples = sum(record["samples"] for record in records)
    tokens = sum(record["tokens"] for record in records) / samples
    sample = Sample(
        tokens=tokens,
        squares=tokens**2,
        images=1.0,
        supervised=sum(record["supervised_tokens"] for record in records) / samples,
    )
    flops = flops_of(
        shape,
        sample,
        samples,
        trains=math.trains,
        lora_r=math.lora.r if math.lora else 0,
        checkpointing=execution.activation_checkpointing,
    )
    seconds = statistics.median(record["seconds"] for record in records) * len(records)
    return hardware.name, flops.total / (
        seconds * execution.world_size * hardware.flops[execution.dtype]
    )
