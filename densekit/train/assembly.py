"""The one assembly of a trainer: for runs, for parity and for tests."""

from collections.abc import Sequence

from accelerate import Accelerator

from densekit.batching.steps import Step
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.execution import Execution
from densekit.spec.math import Math, Optimizer
from densekit.train.engines.base import Engine
from densekit.train.engines.ddp import ReplicatedEngine
from densekit.train.step_dataset import SampleReader, StepDataset
from densekit.train.trainer import Trainer
from densekit.train.utilization import Utilization


def build_trainer(
    model: DenseConnectorForConditionalGeneration,
    reader: SampleReader,
    steps: Sequence[Step],
    math: Math,
    execution: Execution,
    accelerator: Accelerator,
    *,
    utilization: Utilization | None = None,
) -> Trainer:
    """The trainer of `model`, which is at step 0, over `steps` of `reader`'s samples, on this rank
    of the accelerator's process group.
    """
    engine = _engine(model, math.optimizer, accelerator, execution)
    dataset = StepDataset(
        reader,
        steps,
        loss_semantics=math.ledger["U8"],
        rank=engine.rank,
        world_size=engine.world_size,
        micro_batch_size=execution.micro_batch_size,
        tokens_per_micro_batch=execution.tokens_per_micro_batch,
    )
    return Trainer(
        engine,
        dataset,
        math.optimizer,
        seed=math.seed,
        overflow=math.ledger["L2"],
        workers=execution.workers,
        utilization=utilization,
    )


def _engine(
    model: DenseConnectorForConditionalGeneration,
    optimizer_config: Optimizer,
    accelerator: Accelerator,
    execution: Execution,
) -> Engine:
    if execution.zero_stage == 0:
        return ReplicatedEngine(model, optimizer_config, accelerator, execution)
    from densekit.train.engines.zero import ZeroEngine  # imports deepspeed: seconds

    return ZeroEngine(model, optimizer_config, accelerator, execution)
