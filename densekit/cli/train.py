"""`densekit run`, and what launchers start for it: `train` and `attempt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densekit.cli.options import (
    ADVANCED,
    SITE,
    AttentionName,
    CacheDir,
    Checkpointing,
    Container,
    DataDir,
    Deterministic,
    DeviceName,
    DtypeName,
    GpuName,
    Gpus,
    Image,
    Keep,
    LauncherName,
    MicroBatch,
    ModelsDir,
    NoCheckpointing,
    Nodes,
    NoOffload,
    Offload,
    Overrides,
    QueueMinutes,
    RecipeNames,
    RunPath,
    RunsDir,
    Sbatch,
    Zero,
    either,
)
from densekit.cli.packages import need_training_packages

if TYPE_CHECKING:
    from densekit.launch.following import Watch

PANEL = "Train"
commands = typer.Typer()


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit run tiny_stage2 --gpus 2 --set seed=7"
)
def run(
    recipe: RecipeNames,
    gpus: Gpus = None,
    gpu: GpuName = None,
    nodes: Nodes = None,
    launcher: LauncherName = None,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the commands; create and start nothing")
    ] = False,
    overrides: Overrides = None,
    force: Annotated[
        bool, typer.Option("--force", help="Retrain; the earlier run is moved aside")
    ] = False,
    from_checkpoint: Annotated[
        int | None,
        typer.Option(
            "--from-checkpoint",
            help="Step of the checkpoint to resume from (default: the newest)",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    micro_batch: MicroBatch = None,
    zero_stage: Zero = None,
    offload: Offload = False,
    no_offload: NoOffload = False,
    runs_dir: RunsDir = None,
    checkpointing: Checkpointing = False,
    no_checkpointing: NoCheckpointing = False,
    fetch_first: Annotated[
        bool, typer.Option("--fetch", help="Fetch missing models and data first")
    ] = False,
    no_evaluation: Annotated[
        bool,
        typer.Option(
            "--no-evaluation",
            help="Ask no benchmark at the end",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    device: DeviceName = None,
    dtype: DtypeName = None,
    attention: AttentionName = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Processes per rank that read data ahead (default: 0)",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    deterministic: Deterministic = False,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            "--trajectory",
            help="trainer_state.json to compare with as it trains",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    trajectory_stop: Annotated[
        bool,
        typer.Option(
            "--trajectory-stop",
            help="Stop the run where it does not follow that file",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            metavar="TRACKERS",
            help="Figures for tensorboard, wandb too",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    image: Image = None,
    container: Container = None,
    sbatch: Sbatch = None,
    queue_minutes: QueueMinutes = None,
    save_steps: Annotated[
        int | None,
        typer.Option(
            "--save-steps", help="Optimizer steps between checkpoints", rich_help_panel=SITE
        ),
    ] = None,
    save_minutes: Annotated[
        float | None,
        typer.Option(
            "--save-minutes",
            help="Minutes between checkpoints; 0: by steps alone (default: 15)",
            rich_help_panel=SITE,
        ),
    ] = None,
    keep: Keep = None,
    keep_hours: Annotated[
        float | None,
        typer.Option(
            "--keep-hours",
            help="Keep older checkpoints for so many hours (default: 0)",
            rich_help_panel=SITE,
        ),
    ] = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Train recipes, each after the stage it needs; a stage 2 ends with its evaluation.

    A run that was stopped resumes from its newest checkpoint; a complete one is not trained again.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.dry_run import show
    from densekit.launch.launchers.options import LauncherOptions
    from densekit.launch.screen import screen
    from densekit.launch.sweep import select_for_all, sweep
    from densekit.runs.trackers import parse_trackers
    from densekit.spec.execution import ExecutionRequest

    site = site_settings(
        runs_dir=runs_dir,
        data_dir=data_dir,
        models_dir=models_dir,
        cache_dir=cache_dir,
        save_steps=save_steps,
        save_minutes=save_minutes,
        keep=keep,
        keep_hours=keep_hours,
    )
    request = ExecutionRequest(
        device=device,
        gpu=gpu,
        world_size=gpus,
        nodes=nodes,
        micro_batch_size=micro_batch,
        zero_stage=zero_stage,
        activation_checkpointing=either(
            "activation-checkpointing", checkpointing, no_checkpointing
        ),
        cpu_offload=either("offload", offload, no_offload),
        dtype=dtype,
        attention=attention,
        workers=workers,
        deterministic=deterministic,
        save_steps=site.save_steps,
        save_minutes=site.save_minutes,
        keep=site.keep,
        keep_hours=site.keep_hours,
        from_checkpoint=from_checkpoint,
        trackers=parse_trackers(log),
    )
    if fetch_first and not show_only:
        from densekit.launch.fetching import fetch_for_run

        fetch_for_run(recipe, overrides or (), site)
    selection = select_for_all(
        recipe,
        overrides or (),
        request,
        launcher=launcher,
        options=LauncherOptions(
            image=image,
            container=container,
            sbatch=tuple(sbatch or ()),
            queue_minutes=queue_minutes,
        ),
        site=site,
    )
    common: dict[str, Any] = {
        "overrides": overrides or (),
        "runs_dir": site.runs_dir,
        "roots": site.roots,
        "request": selection.request,
        "hardware": selection.hardware,
        "launcher": selection.launcher,
    }
    if show_only:
        print("\n".join([f"# {selection.reason}", *show(recipe, **common)]))
        return
    watch = _watch(trajectory, stop=trajectory_stop)
    with screen():
        code = sweep(
            recipe,
            force=force,
            announce=selection.reason,
            watch=watch,
            evaluation=not no_evaluation,
            **common,
        )
    raise typer.Exit(code)


def _watch(file: Path | None, *, stop: bool) -> "Watch":
    """What is done while the run trains. Raises DataError for a file that is no log."""
    from densekit.audit.trajectory.published import read_published
    from densekit.errors import UsageError
    from densekit.launch.following import following, unwatched

    if file is None:
        if stop:
            raise UsageError("--trajectory-stop: give --trajectory FILE too")
        return unwatched
    return following(read_published(file), stop=stop)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit train runs/RUN")
def train(run_dir: RunPath) -> None:
    """Train one run directory in this process (launchers start this)."""
    need_training_packages()
    from densekit.runs.launch_variables import clear_for
    from densekit.runs.layout import RunDir

    clear_for(run_dir, RunDir(run_dir).execution)
    from densekit.train.task import train as train_run

    train_run(run_dir)


@commands.command(hidden=True, epilog="Example: densekit measure .cache/densekit/measure/RUN")
def measure(folder: Annotated[Path, typer.Argument(help="Folder of a measurement")]) -> None:
    """Take the steps of a measurement in this process (launchers start this)."""
    need_training_packages()
    from densekit.runs.launch_variables import clear_for
    from densekit.runs.measurement import MeasureDir

    run = MeasureDir(folder)
    clear_for(folder, run.execution, verb=run.verb)
    from densekit.train.measure import measure as take_steps

    take_steps(folder)


@commands.command(hidden=True, epilog="Example: densekit attempt runs/RUN")
def attempt(run_dir: RunPath) -> None:
    """Open the next attempt of a run like its last one (jobs that Slurm restarts call this)."""
    from densekit.launch.chain import open_next_attempt

    open_next_attempt(run_dir)
