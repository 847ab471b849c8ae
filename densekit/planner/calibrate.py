"""The share of a GPU's peak that earlier runs reached, from their metrics: it replaces the
published interval.
"""

import statistics
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.planner.measured import MARGIN, WARM_UP
from densekit.runs.layout import RunDir
from densekit.runs.manifest import MANIFEST_FILE, Manifest, read_manifest
from densekit.runs.records import METRICS_FILE, read_steps
from densekit.spec.architectures import shape_of
from densekit.spec.execution import Execution
from densekit.spec.flops import AverageSample, flops_of
from densekit.spec.hardware import Efficiency, named_hardware
from densekit.spec.trained_model import TrainedModel

STEPS = 20
"""Steps after WARM_UP that a run must have."""


def measured_efficiency(runs_dir: Path) -> dict[str, Efficiency]:
    """What runs reached, by kind of GPU; a run that cannot be read is left out."""
    reached: dict[str, list[float]] = {}
    for path in sorted(runs_dir.glob(f"*/{MANIFEST_FILE}")):
        try:
            run = _efficiency(path.parent, read_manifest(path.parent))
        except (DataError, UsageError, LookupError, TypeError, ValueError, ArithmeticError):
            continue
        if run is not None:
            reached.setdefault(run[0], []).append(run[1])
    return {
        kind: (min(shares) * (1 - MARGIN), max(shares) * (1 + MARGIN))
        for kind, shares in reached.items()
    }


def _efficiency(run: Path, manifest: Manifest) -> tuple[str, float] | None:
    """Kind of GPU and share of its peak, of a complete run on GPUs of the table without offload."""
    devices = manifest.environment.devices
    execution = Execution.from_json(manifest.execution, source=str(run / MANIFEST_FILE))
    if (
        manifest.state != "complete"
        or not devices
        or execution.device != "cuda"
        or execution.cpu_offload
    ):
        return None
    hardware = named_hardware(devices[0].name)
    if hardware is None:
        return None
    math = RunDir(run).math.recipe
    if math.assets is not None:
        return None  # too small to say anything of a GPU
    records = read_steps(run / METRICS_FILE)[WARM_UP:]
    if len(records) < STEPS:
        return None
    samples = sum(record.samples for record in records)
    tokens = sum(record.tokens for record in records) / samples
    sample = AverageSample(
        tokens=tokens,
        squares=tokens**2,
        images=1.0,
        label_positions=sum(record.supervised_tokens for record in records) / samples,
    )
    flops = flops_of(
        TrainedModel.of(math, shape_of(math, execution.roots)),
        sample,
        samples,
        activation_checkpointing=execution.activation_checkpointing,
    )
    seconds = statistics.median(record.seconds for record in records) * len(records)
    return hardware.name, flops.total / (
        seconds * execution.world_size * hardware.flops[execution.dtype]
    )
