"""`densekit run`, and what it starts: `train` and `attempt`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from densekit.cli.options import (
    DEFAULT_ROOTS,
    AttentionName,
    CacheDir,
    Checkpointing,
    DataDir,
    Deterministic,
    DeviceName,
    DtypeName,
    LauncherName,
    MicroBatch,
    ModelsDir,
    Offload,
    Overrides,
    RunPath,
    RunsDir,
    Runtime,
    Workers,
    Zero,
)
from densekit.cli.packages import need_training_packages
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots

commands = typer.Typer()


@commands.command()
def run(
    recipe: Annotated[
        list[str], typer.Argument(help="Recipes: names, or paths of YAML files of your own.")
    ],
    launcher: Annotated[
        LauncherName | None,
        typer.Option("--launcher", help="local, docker or slurm; by default docker on a GPU host."),
    ] = None,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the commands; make and start nothing.")
    ] = False,
    image: Annotated[
        str | None,
        typer.Option("--image", help="Container image; by default the one for the GPUs found."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="slurm: nodes, which share --gpus evenly.")
    ] = None,
    container: Annotated[
        Runtime, typer.Option("--container", help="slurm: none, pyxis or apptainer.")
    ] = "none",
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", help="slurm: an option of sbatch, as partition=gpu. Repeatable."),
    ] = None,
    queue_minutes: Annotated[
        float | None,
        typer.Option(
            "--queue-minutes", help="slurm: give up a job that waits longer for its nodes."
        ),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="slurm: kind of the cluster's GPUs; by default the paper's."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="Processes to use; by default the GPUs found, or one on CPU."),
    ] = None,
    micro_batch: MicroBatch = None,
    device: DeviceName = None,
    dtype: DtypeName = None,
    attention: AttentionName = None,
    zero_stage: Zero = None,
    checkpointing: Checkpointing = None,
    offload: Offload = None,
    workers: Workers = 0,
    save_steps: Annotated[
        int | None, typer.Option("--save-steps", help="Checkpoint every so many steps.")
    ] = None,
    save_minutes: Annotated[
        float,
        typer.Option("--save-minutes", help="Checkpoint every so many minutes; 0: by steps alone."),
    ] = 15.0,
    keep: Annotated[int, typer.Option("--keep", help="Checkpoints to keep, the newest ones.")] = 2,
    keep_hours: Annotated[
        float, typer.Option("--keep-hours", help="Keep older ones until they are so old.")
    ] = 0.0,
    deterministic: Deterministic = False,
    overrides: Overrides = None,
    data_dir: DataDir = DEFAULT_ROOTS.data,
    models_dir: ModelsDir = DEFAULT_ROOTS.models,
    cache_dir: CacheDir = DEFAULT_ROOTS.cache,
    force: Annotated[
        bool, typer.Option("--force", help="Train anew; the earlier run is set aside.")
    ] = False,
) -> None:
    """Train recipes, each after the stage it needs. A run that was stopped goes on from its newest
    checkpoint.
    """
    from densekit.launch.launchers.slurm.script import Batch, parse_options
    from densekit.launch.selection import Asked
    from densekit.launch.sweep import choose_for_all, show_sweep, sweep

    choice = choose_for_all(
        recipe,
        overrides or (),
        Asked(
            launcher=launcher,
            device=device,
            gpus=gpus,
            nodes=nodes,
            gpu=gpu,
            image=image,
            batch=Batch(runtime=container, image=image, options=parse_options(sbatch or ())),
            queue_minutes=queue_minutes,
        ),
    )
    roots = Roots(data=data_dir, models=models_dir, cache=cache_dir)
    request = ExecutionRequest(
        device=choice.device,
        world_size=choice.gpus,
        nodes=choice.nodes,
        micro_batch_size=micro_batch,
        zero_stage=zero_stage,
        activation_checkpointing=checkpointing,
        cpu_offload=offload,
        dtype=dtype,
        attention=attention,
        workers=workers,
        deterministic=deterministic,
        save_steps=save_steps,
        save_minutes=save_minutes,
        keep=keep,
        keep_hours=keep_hours,
    )
    common: dict[str, Any] = {
        "overrides": overrides or (),
        "runs_dir": runs_dir,
        "roots": roots,
        "request": request,
        "hardware": choice.hardware,
        "launcher": choice.launcher,
    }
    if show_only:
        print("\n".join([f"# {choice.reason}", *show_sweep(recipe, **common)]))
        return
    raise typer.Exit(sweep(recipe, force=force, announce=choice.reason, **common))


@commands.command()
def train(run_dir: RunPath) -> None:
    """Train one run directory in this process (what launchers start)."""
    need_training_packages()
    from densekit.train.task import train as train_run

    train_run(run_dir)


@commands.command(hidden=True)
def attempt(run_dir: RunPath) -> None:
    """Open the next attempt of a run like its last one (what a job does that Slurm started again)."""
    from densekit.launch.chain import open_next_attempt

    open_next_attempt(run_dir)
