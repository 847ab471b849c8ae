"""Every option that several commands share, once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from densekit.spec.roots import Roots
from densekit.spec.types import AttentionKernel, Device, Dtype, ZeroStage

LauncherName = Literal["local", "docker", "slurm"]
Runtime = Literal["none", "pyxis", "apptainer"]

RecipeName = Annotated[
    str, typer.Argument(help="Name of a recipe, or the path of a YAML file of your own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: key=value. Repeatable.")
]
GpuName = Annotated[
    str | None,
    typer.Option("--gpu", help="Kind of GPU, as a100-80g or h200; a wrong name lists them all."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", help="Processes of all nodes together, one per GPU; by default the paper's."
    ),
]
MicroBatch = Annotated[int | None, typer.Option("--micro-batch", help="Samples per micro-batch.")]
DeviceName = Annotated[
    Device | None,
    typer.Option(
        "--device", help="What computes: cpu or cuda; by default cuda where there are GPUs."
    ),
]
DtypeName = Annotated[
    Dtype | None, typer.Option("--dtype", help="Number type; by default what suits the device.")
]
AttentionName = Annotated[
    AttentionKernel | None,
    typer.Option(
        "--attention", help="Kernel of packed rows; by default what suits device and type."
    ),
]
Zero = Annotated[
    ZeroStage | None,
    typer.Option("--zero-stage", help="DeepSpeed ZeRO stage; 0 is without DeepSpeed."),
]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--activation-checkpointing/--no-activation-checkpointing",
        help="Trade a forward pass for memory.",
    ),
]
Offload = Annotated[
    bool | None,
    typer.Option(
        "--offload/--no-offload", help="AdamW and its moments in main memory (ZeRO-3 only)."
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", help="Processes per trainer process that read data ahead.")
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Deterministic kernels only (slower on a GPU).")
]
RunPath = Annotated[Path, typer.Argument(help="A run directory that `run` made.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run directories are made.")]
DataDir = Annotated[Path, typer.Option("--data-dir", help="The `data:` root.")]
ModelsDir = Annotated[Path, typer.Option("--models-dir", help="The `models:` root.")]
CacheDir = Annotated[Path, typer.Option("--cache-dir", help="The `cache:` root.")]
DEFAULT_ROOTS = Roots()
