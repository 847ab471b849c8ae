"""The one assembly of a trainer: for runs, for parity and for tests."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from densekit.batching.steps import Step
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.train.engines.base import make_engine
from densekit.train.step_dataset import SampleReader, StepDataset
from densekit.train.trainer import Trainer


def build_trainer(
    model: DenseConnectorForConditionalGeneration,
    reader: SampleReader,
    steps: Sequence[Step],
    math: Math,
    execution: Execution,
    accelerator: Accelerator,
) -> Trainer:
    """The trainer of `model`, which is at step 0, over `steps` of `reader`'s samples, on this rank
    of the accelerator's process group.
    """
    engine = make_engine(model, math.optimizer, accelerator, execution)
    dataset = StepDataset(
        reader,
        steps,
        loss_semantics=math.ledger["U8"],
        rank=engine.rank,
        world_size=engine.world_size,
        micro_batch_size=execution.micro_batch_size,
    )
    return Trainer(
        engine,
        dataset,
        math.optimizer,
        lookup_table=torch.from_numpy(reader.processor.lookup_table()),
        seed=math.seed,
        overflow=math.ledger["L2"],
        workers=execution.workers,
    )
