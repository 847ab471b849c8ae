"""Every option and argument that commands share, once, and the panels in which `--help` shows them.

An option whose default is None here takes it from the site settings (`densekit.cli.site`), from the
recipe or from the plan; its help says which.
"""

from pathlib import Path
from typing import Annotated

import typer

from densekit.errors import UsageError
from densekit.launch.launchers.registry import DEFAULT_ON_GPU_HOST, launcher_names
from densekit.spec.types import AttentionKernel, ContainerRuntime, Device, Dtype, ZeroStage

ADVANCED = "Advanced"
SITE = "Site settings: defaults in densekit.yaml, see `densekit site`"


def complete_recipes(incomplete: str) -> list[str]:
    """Names of recipes for shell completion."""
    from densekit.recipes.load import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Names of run directories for shell completion; none where the site settings are wrong."""
    from densekit.cli.site import site_settings
    from densekit.errors import DensekitError
    from densekit.runs.layout import MATH_FILE

    try:
        runs = site_settings().runs_dir.glob(f"*/{MATH_FILE}")
        return sorted(run.parent.name for run in runs if run.parent.name.startswith(incomplete))
    except (DensekitError, OSError):
        return []


def complete_gpus(incomplete: str) -> list[str]:
    """Names of GPU types for shell completion."""
    from densekit.spec.hardware import BY_NAME

    return [name for name in BY_NAME if name.startswith(incomplete)]


# What is named.
RecipeName = Annotated[
    str,
    typer.Argument(
        help="Name of a recipe, or path of a YAML file of your own",
        autocompletion=complete_recipes,
        show_default=False,
    ),
]
RecipeNames = Annotated[
    list[str],
    typer.Argument(
        help="Recipes: names, or paths of YAML files of your own",
        autocompletion=complete_recipes,
        show_default=False,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        help="Run directory: its path, its name in --runs-dir, or the start of that name",
        autocompletion=complete_runs,
        show_default=False,
    ),
]
RunNames = Annotated[
    list[str] | None,
    typer.Argument(
        help="Run directories: paths, names in --runs-dir, or the starts of such names",
        autocompletion=complete_runs,
        show_default=False,
    ),
]
RunPath = Annotated[Path, typer.Argument(help="Path of a run directory that `densekit run` made")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value of the recipe: key=value (repeatable)"),
]

# How a run is executed.
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", help="Processes, one per GPU (default: the GPUs found)"),
]
PlannedGpus = Annotated[
    int | None,
    typer.Option("--gpus", help="Processes, one per GPU (default: the paper's)"),
]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="GPU type, e.g. a100-80g or h200 (default: that of the GPUs found; slurm: the "
        "paper's)",
        autocompletion=complete_gpus,
    ),
]
PlannedGpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="GPU type, e.g. a100-80g or h200 (default: the paper's)",
        autocompletion=complete_gpus,
    ),
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", help="Nodes, each with the same share of --gpus")
]
MicroBatch = Annotated[
    int | None,
    typer.Option("--micro-batch", help="Samples per micro-batch (default: the most that fit)"),
]
Zero = Annotated[
    ZeroStage | None,
    typer.Option(
        "--zero-stage",
        help="DeepSpeed ZeRO stage: 0 (none), 2 or 3 (default: planned)",
        show_choices=False,
    ),
]
Offload = Annotated[
    bool, typer.Option("--offload", help="Optimizer in host RAM (ZeRO-3 only); --no-offload: never")
]
NoOffload = Annotated[bool, typer.Option("--no-offload", hidden=True)]
Checkpointing = Annotated[
    bool,
    typer.Option(
        "--activation-checkpointing",
        help="Recompute activations in the backward pass; --no-activation-checkpointing: never",
        rich_help_panel=ADVANCED,
    ),
]
NoCheckpointing = Annotated[bool, typer.Option("--no-activation-checkpointing", hidden=True)]
DeviceName = Annotated[
    Device | None,
    typer.Option(
        "--device",
        help="cpu or cuda (default: cuda where there are GPUs)",
        show_choices=False,
        rich_help_panel=ADVANCED,
    ),
]
DtypeName = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Compute dtype: fp32, bf16, fp16 (default: from the GPU)",
        show_choices=False,
        rich_help_panel=ADVANCED,
    ),
]
AttentionName = Annotated[
    AttentionKernel | None,
    typer.Option(
        "--attention",
        help="Attention kernel: sdpa, flash or xformers (default: chosen from the GPU and the "
        "dtype)",
        show_choices=False,
        rich_help_panel=ADVANCED,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Deterministic kernels only (slower on a GPU)",
        rich_help_panel=ADVANCED,
    ),
]

# Where runs are and what they read.
RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Folder of the run directories (default: runs)")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data: is (default: data)", rich_help_panel=SITE),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option("--models-dir", help="Where models: is (default: models)", rich_help_panel=SITE),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", help="Where cache: is (default: .cache/densekit)", rich_help_panel=SITE
    ),
]
Keep = Annotated[
    int | None,
    typer.Option("--keep", help="Newest checkpoints to keep (default: 2)", rich_help_panel=SITE),
]

# What carries a run out.
LauncherName = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        help=f"{', '.join(launcher_names())} (default: {DEFAULT_ON_GPU_HOST} on a GPU host)",
        autocompletion=launcher_names,
    ),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--image",
        help="Container image (default: the one for the GPUs found)",
        rich_help_panel=SITE,
    ),
]
Container = Annotated[
    ContainerRuntime | None,
    typer.Option(
        "--container",
        help="slurm: none, pyxis or apptainer (default: none)",
        show_choices=False,
        rich_help_panel=SITE,
    ),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        help="slurm: an option of sbatch, e.g. partition=gpu (repeatable)",
        rich_help_panel=SITE,
    ),
]
QueueMinutes = Annotated[
    float | None,
    typer.Option(
        "--queue-minutes",
        help="slurm: cancel a job that waits longer for its nodes",
        rich_help_panel=SITE,
    ),
]

# What is printed.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]


def either(name: str, yes: bool, no: bool) -> bool | None:
    """The value of a pair of flags `--name` and `--no-name`; None where neither is given."""
    if yes and no:
        raise UsageError(f"--{name} --no-{name}: give one of the two")
    return True if yes else False if no else None
