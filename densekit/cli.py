"""The command line: one thin command per verb."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml

from densekit import __version__
from densekit.errors import DataError, DensekitError, UsageError
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from densekit.spec.types import AttentionKernel, Device, Dtype, ZeroStage

if TYPE_CHECKING:
    from densekit.spec.check import Check

LauncherName = Literal["local", "docker", "slurm"]
Runtime = Literal["none", "pyxis", "apptainer"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
images_app = typer.Typer(
    no_args_is_help=True, help="Build the images that docker/Dockerfile describes."
)
app.add_typer(images_app, name="images")

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
CHECKOUT = Path(__file__).resolve().parent.parent


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Reproduce "Dense Connector for MLLMs" (arXiv 2405.13800)."""
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes as the paper's tables have them, with the scores that it reports."""
    from densekit.recipes import listing

    if as_json:
        _print_json(listing.as_json())
    else:
        print("\n".join(listing.list_lines()))


@app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Say of every value where it was written, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe with everything it inherits."""
    from densekit.recipes.explain import explain, report

    values = load_recipe(recipe, overrides or ()).model_dump(mode="json")
    told = explain(recipe, overrides or ()) if sources else []
    if as_json:
        _print_json([asdict(value) for value in told] if sources else values)
    elif sources:
        print("\n".join(report(told)))
    else:
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")


@app.command()
def pin(
    repos: Annotated[
        list[str] | None, typer.Argument(help="Repositories; by default those without a commit.")
    ] = None,
) -> None:
    """Ask the hub for the commits of models and data, and write them into recipes/revisions.yaml."""
    from densekit.recipes.revisions import pin as resolve

    found = resolve(repos or ())
    print(
        "\n".join(f"{repo} {commit}" for repo, commit in found.items())
        or "every repository has a commit"
    )


@app.command()
def plan(
    recipe: RecipeName,
    gpu: GpuName = None,
    gpus: Gpus = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Nodes that share --gpus evenly.")
    ] = None,
    micro_batch: MicroBatch = None,
    device: DeviceName = None,
    dtype: DtypeName = None,
    attention: AttentionName = None,
    zero_stage: Zero = None,
    checkpointing: Checkpointing = None,
    offload: Offload = None,
    keep: Annotated[int, typer.Option("--keep", help="Checkpoints to keep (for the disk).")] = 2,
    price: Annotated[
        float | None, typer.Option("--price", help="What one GPU costs for an hour.")
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Print the arithmetic.")] = False,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = DEFAULT_ROOTS.data,
    models_dir: ModelsDir = DEFAULT_ROOTS.models,
    cache_dir: CacheDir = DEFAULT_ROOTS.cache,
    certify: Annotated[
        bool, typer.Option("--certify", help="Hash what every step feeds (reads the annotations).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, whether it fits, how long it takes and what it costs, without doing
    it.

    Without --gpu a recipe of the paper is planned on the paper's GPUs, and what else fits is
    listed.
    """
    from densekit.planner import report as screen
    from densekit.planner.request import answer, reported

    request = ExecutionRequest(
        device=device,
        gpu=gpu,
        world_size=gpus,
        nodes=nodes,
        micro_batch_size=micro_batch,
        zero_stage=zero_stage,
        activation_checkpointing=checkpointing,
        cpu_offload=offload,
        dtype=dtype,
        attention=attention,
        keep=keep,
    )
    loaded = load_recipe(recipe, overrides or ())
    planned, others = answer(
        loaded,
        request,
        Roots(data=data_dir, models=models_dir, cache=cache_dir),
        runs_dir,
        price=price,
        certify=certify,
    )
    if as_json:
        _print_json(screen.as_json(planned, others, reported(loaded), why=why))
    else:
        print("\n".join(screen.screen(planned, others, reported(loaded), why=why)))


@app.command()
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


@app.command()
def train(run_dir: RunPath) -> None:
    """Train one run directory in this process (what launchers start)."""
    _need_training_packages()
    from densekit.train.task import train as train_run

    train_run(run_dir)


@app.command(hidden=True)
def attempt(run_dir: RunPath) -> None:
    """Open the next attempt of a run like its last one (what a job does that Slurm started again)."""
    from densekit.launch.chain import open_next_attempt

    open_next_attempt(run_dir)


@app.command("ls")
def list_runs(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs: what each is doing, where, and how far it is."""
    from densekit.launch.listing import list_runs as rows_of

    rows = [asdict(row) for row in rows_of(runs_dir)]
    if as_json:
        _print_json(rows)
        return
    if not rows:
        print(f"no run in {runs_dir}")
        return
    names = list(rows[0])
    widths = {name: max(len(str(row[name])) for row in [*rows, {name: name}]) for name in names}
    for row in [{name: name for name in names}, *rows]:
        print("  ".join(f"{row[name]!s:{widths[name]}}" for name in names).rstrip())


@app.command()
def tail(run_dir: RunPath) -> None:
    """Show the log of a run as it is written, until the run is over. Ctrl-C ends only the showing."""
    from densekit.launch.listing import follow
    from densekit.runs.layout import RunDir

    run = RunDir(run_dir)
    try:
        for text in follow(run):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    status = run.status
    print(
        f"{run_dir} is {status['state']}" + (f": {status['message']}" if status["message"] else ""),
        file=sys.stderr,
    )


@app.command()
def stop(
    run_dir: RunPath,
    now: Annotated[
        bool, typer.Option("--now", help="End it at once; steps since its checkpoint are lost.")
    ] = False,
) -> None:
    """Stop a run at a checkpoint, whichever launcher started it; `densekit run` goes on with it."""
    from densekit.launch.launchers.in_flight import stop as stop_run
    from densekit.runs.layout import RunDir

    print(stop_run(RunDir(run_dir), now=now))


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose data and models are checked too.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = DEFAULT_ROOTS.data,
    models_dir: ModelsDir = DEFAULT_ROOTS.models,
    cache_dir: CacheDir = DEFAULT_ROOTS.cache,
    as_json: AsJson = False,
) -> None:
    """Say what this host can train, and what is missing. Exit code 0: nothing fails; 1: something
    does.
    """
    from densekit.launch.doctor import doctor as examine

    checks = examine(recipe, Roots(data=data_dir, models=models_dir, cache=cache_dir), runs_dir)
    _print_checks(checks, as_json)


@app.command()
def diff(
    run_a: Annotated[Path, typer.Argument(help="A run directory.")],
    run_b: Annotated[Path, typer.Argument(help="The run directory to compare it with.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Difference of losses that is no parting.")
    ] = 1e-5,
    as_json: AsJson = False,
) -> None:
    """Say where two runs part, and what can be the cause. Exit code 0: equal within the tolerance;
    1: they part.
    """
    from densekit.audit.diff.compare import compare_runs

    found = compare_runs(run_a, run_b, tolerance=tolerance)
    if as_json:
        _print_json(found.as_json())
    else:
        print("\n".join(found.report()))
    raise typer.Exit(0 if found.equal else 1)


@app.command()
def verify(run_dir: RunPath, as_json: AsJson = False) -> None:
    """Recheck every hash of a run and of what it was trained from. Exit code 0: nothing fails; 1:
    something does.
    """
    from densekit.audit.verify.verify import verify_run

    _print_checks(verify_run(run_dir), as_json)


@app.command()
def replay(
    run_dir: RunPath,
    runs_dir: Annotated[
        Path | None,
        typer.Option("--runs-dir", help="Where the replay is made; by default beside the run."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="By default bits have to be equal where they can be, else within 1e-5.",
        ),
    ] = None,
    deterministic: Deterministic = False,
) -> None:
    """Train a complete run again as it was trained, and compare. Exit code 0: equal as expected; 1:
    the two part.
    """
    from densekit.launch.replay import replay as replay_run

    code = replay_run(run_dir, runs_dir=runs_dir, tolerance=tolerance, deterministic=deterministic)
    raise typer.Exit(code)


@app.command()
def parity(
    directory: Annotated[
        Path, typer.Argument(help="A folder of numbers recorded from the official code.")
    ],
    as_json: AsJson = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every quantity of every case.")
    ] = False,
) -> None:
    """Compare densekit with numbers recorded from the official code."""
    _need_training_packages()
    from densekit.parity.report import print_report, run_parity

    report = run_parity(directory, progress=not as_json)
    if as_json:
        _print_json(report.as_json())
    else:
        print_report(report, verbose=verbose)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def selftest(as_json: AsJson = False) -> None:
    """Say what this machine or container can train; exit 1 if something in it is wrong."""
    _need_training_packages()
    from densekit.train.selftest import selftest as findings

    lines = findings()
    if as_json:
        _print_json([asdict(line) for line in lines])
    else:
        for line in lines:
            print(f"{line.mark:4} {line.name:9} {line.text}")
    raise typer.Exit(1 if any(line.mark == "FAIL" for line in lines) else 0)


@app.command()
def evaluate(run_dir: Annotated[Path, typer.Argument(help="A complete run directory.")]) -> None:
    """Score a trained run on the paper's benchmarks (not built yet)."""
    raise UsageError(
        f"evaluate {run_dir}: the paper's benchmarks are not connected yet (the lmms-eval adapter is missing); "
        "tiny recipes ask their held-out questions at the end of `densekit run`"
    )


@images_app.command("lock")
def lock_images() -> None:
    """Record the digests of the base images (asks their registry); builds use them from then on."""
    from densekit.containers.base_images import LOCK, lock

    for tag, (before, now) in lock(CHECKOUT).items():
        print(
            f"{tag}  {now}{'' if before == now else f'  (before: {before})' if before else '  (new)'}"
        )
    print(f"written to {LOCK}")


@images_app.command("build", context_settings={"ignore_unknown_options": True})
def build_image(
    target: Annotated[str, typer.Argument(help="a100, v100, cpu or tensorboard.")],
    extra: Annotated[
        list[str] | None, typer.Argument(help="More options of `docker build`.")
    ] = None,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the command; build nothing.")
    ] = False,
) -> None:
    """Build one image from pinned bases, labelled with the commit it is made from."""
    from densekit.containers.build import build, build_command

    command = build_command(CHECKOUT, target, extra or ())
    if show_only:
        print(shlex.join(command))
        return
    raise typer.Exit(build(command))


def _need_training_packages() -> None:
    from importlib.util import find_spec

    missing = [
        name
        for name in ("torch", "transformers", "accelerate", "peft", "deepspeed")
        if find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: run `make setup` (this needs the training requirements)"
        )


def _print_checks(checks: "Sequence[Check]", as_json: bool) -> None:
    ok = all(check.state != "fail" for check in checks)
    if as_json:
        _print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            print(f"{check.state:4}  {check.name}: {check.message}")
    raise typer.Exit(0 if ok else 1)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def main() -> None:
    """Entry point: errors a user can cause become one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a title in letters that the terminal does not have
    try:
        app()
    except DensekitError as error:
        print(f"densekit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # what the system refuses: a name too long, no permission, a full disk
        print(f"densekit: {error}", file=sys.stderr)
        raise SystemExit(DataError.exit_code) from None
