"""`densekit plan`: what a run would do, whether it fits, how long it takes and what it costs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from densekit.cli.options import (
    AsJson,
    AttentionName,
    CacheDir,
    Checkpointing,
    DataDir,
    DeviceName,
    DtypeName,
    Keep,
    MicroBatch,
    ModelsDir,
    NoCheckpointing,
    Nodes,
    NoOffload,
    Offload,
    Overrides,
    PlannedGpuName,
    PlannedGpus,
    RecipeName,
    RunsDir,
    Zero,
    either,
)
from densekit.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from densekit.planner.plan import Plan
    from densekit.spec.execution import ExecutionRequest
    from densekit.spec.site import Site

DOES_NOT_FIT_CODE = 1
"""Exit code of a plan that is printed and does not fit."""

commands = typer.Typer()


@commands.command(
    rich_help_panel="Train",
    epilog="Example: densekit plan vicuna7b_clip_stage2 --gpu a100-80g --gpus 8 --why",
)
def plan(
    recipe: RecipeName,
    gpu: PlannedGpuName = None,
    gpus: PlannedGpus = None,
    nodes: Nodes = None,
    micro_batch: MicroBatch = None,
    zero_stage: Zero = None,
    offload: Offload = False,
    no_offload: NoOffload = False,
    overrides: Overrides = None,
    price: Annotated[
        float | None,
        typer.Option("--price", help="What one GPU costs for an hour, in your currency"),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Print the arithmetic")] = False,
    certify: Annotated[
        bool,
        typer.Option("--certify", help="Compute the batch certificate (reads the annotations)"),
    ] = False,
    measure: Annotated[
        int | None,
        typer.Option(
            "--measure",
            metavar="N",
            help="Take N steps on this host's hardware, and plan for that with what they took",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    device: DeviceName = None,
    dtype: DtypeName = None,
    attention: AttentionName = None,
    checkpointing: Checkpointing = False,
    no_checkpointing: NoCheckpointing = False,
    keep: Keep = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Estimate a run: does it fit, how long does it take, what does it cost.

    Nothing is trained and nothing is written. Without --gpu a recipe of the paper is planned on the
    paper's GPUs, and what else fits is listed.

    With --measure the plan is for this host, as `densekit run` would train there. The first half of
    the N steps, at most 10, warms up; no run comes of it.

    Exit code 1: the plan is printed, and it does not fit (--device cpu, --micro-batch). Exit code
    2: nothing fits on the GPUs; what fits instead is named.
    """
    from densekit.cli.site import site_settings
    from densekit.planner import report as screen
    from densekit.planner.request import answer, reported
    from densekit.recipes.load import load_recipe
    from densekit.spec.execution import ExecutionRequest

    site = site_settings(
        runs_dir=runs_dir,
        data_dir=data_dir,
        models_dir=models_dir,
        cache_dir=cache_dir,
        keep=keep,
        price=price,
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
        keep=site.keep,
    )
    loaded = load_recipe(recipe, overrides or ())
    if measure is None:
        planned, others = answer(
            loaded, request, site.roots, site.runs_dir, price=site.price, certify=certify
        )
    else:
        planned, others = _measured(recipe, overrides or (), request, site, measure), None
    if as_json:
        print_json(screen.as_json(planned, others, reported(loaded), why=why))
    else:
        print_lines(screen.lines(planned, others, reported(loaded), why=why))
    if planned.fits is False:
        raise typer.Exit(DOES_NOT_FIT_CODE)


def _measured(
    recipe: str, overrides: Sequence[str], request: "ExecutionRequest", site: "Site", steps: int
) -> "Plan":
    """The plan for this host, with the hours that follow from what steps took there."""
    from densekit.launch.measuring import measure
    from densekit.planner.planning import check_price

    check_price(site.price)
    plan, taken = measure(recipe, overrides=overrides, request=request, site=site, steps=steps)
    return plan.narrowed(taken, site.price)
