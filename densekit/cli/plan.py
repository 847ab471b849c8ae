"""`densekit plan`: what a run would do, whether it fits, how long it takes."""

from pathlib import Path
from typing import Annotated

import typer

from densekit.cli.options import (
    DEFAULT_ROOTS,
    AsJson,
    AttentionName,
    CacheDir,
    Checkpointing,
    DataDir,
    DeviceName,
    DtypeName,
    GpuName,
    Gpus,
    MicroBatch,
    ModelsDir,
    Offload,
    Overrides,
    RecipeName,
    RunsDir,
    Zero,
)
from densekit.cli.output import print_json
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots

commands = typer.Typer()


@commands.command()
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
        print_json(screen.as_json(planned, others, reported(loaded), why=why))
    else:
        print("\n".join(screen.lines(planned, others, reported(loaded), why=why)))
