"""What ranks do in the tests of engines: gradients and curves of recorded cases under any split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from densekit.batching.steps import Step
from densekit.data.annotations import Annotations
from densekit.data.pixels import ImageProcessor
from densekit.model.weights import read_weights
from densekit.parity.case import Recording
from densekit.runs.checkpoint import read_checkpoint
from densekit.runs.layout import checkpoint_name
from densekit.runs.records import Position, StepMetrics
from densekit.runs.results import Summary
from densekit.spec.execution import Execution
from densekit.spec.math import Lora, Math
from densekit.spec.roots import Roots
from densekit.spec.types import Semantics
from densekit.train.assembly import build_trainer
from densekit.train.checkpoints import fill_masters, load_checkpoint
from densekit.train.engines import process_group
from densekit.train.engines.base import Engine
from densekit.train.engines.process_group import make_accelerator
from densekit.train.initial_state import init_by_parameter, load_base, prepare
from densekit.train.lora import initial_lora
from densekit.train.saves import Cursor, Saves
from densekit.train.trainer import Trainer

# Mixed modality: samples without an image among them, and a group of nothing else.
FEW = ((1,), (5, 0))
"""Three samples, the middle one without an image: with more ranks some are idle, and some
micro-batches hold text only.
"""
GROUPS = ((0, 2, 4), (5, 8, 11), (1, 3, 6), (14, 7, 9))


def make_trainer(
    golden: Path,
    steps: list[Step],
    execution: Execution,
    *,
    case: str = "clip_dci",
    stage: int = 2,
    math: Math | None = None,
    init: dict[str, Tensor] | None = None,
) -> Trainer:
    """densekit's trainer over the recorded training data on the ranks at hand."""
    AcceleratorState._reset_state()  # one process tries many engines; a trainer has one
    recording = Recording.read(golden, golden / case / f"stage{stage}.json")
    math = math or recording.math
    if init is None:
        start = "projector_init" if stage == 1 else "projector_after_stage1"
        weights = read_weights(golden / case / f"{start}.safetensors")
        init = {f"connector.{name}": value for name, value in weights.items()}
    accelerator = make_accelerator(execution, max_grad_norm=math.optimizer.max_grad_norm)
    model = prepare(load_base(math, Roots(), execution, accelerator), math, init)
    reader = recording.reader(golden / "data" / f"stage{stage}_train.json", model)
    if math.data.anyres is not None or math.connector.mining is not None:
        processor = ImageProcessor.from_pretrained(
            Path(math.models.vision_tower),
            math.data.image_aspect_ratio,
            math.data.anyres,
            mining=math.connector.mining,
        )
        reader = replace(reader, processor=processor)
    return build_trainer(model, reader, steps, math, execution, accelerator)


def step_of(groups: tuple[tuple[int, ...], ...], index: int = 0) -> Step:
    """One optimizer step of these reference groups."""
    return Step(index=index, groups=[np.array(group) for group in groups], num_groups=len(groups))


def full_gradient(engine: Engine) -> dict[str, Tensor]:
    """Every trainable parameter's gradient after a step's last micro-batch, whole, under any
    engine.
    """
    if engine.execution.zero_stage == 0:
        return {name: p.grad.clone() for name, p in engine.trainable.items()}
    from deepspeed.utils import safe_get_full_grad

    return {
        name: safe_get_full_grad(p).reshape(engine.shapes[name]).clone()
        for name, p in engine.trainable.items()
    }


def gradients(
    golden: Path,
    configurations: list[tuple[int, tuple[tuple[int, ...], ...]]],
    execution: Execution,
    **options: Any,
) -> list[tuple[float, dict[str, Tensor], list[str]]]:
    """Loss, gradient and fed ids of one step per configuration (micro-batch size, reference
    groups), from rank 0.
    """
    found = []
    for micro_batch_size, groups in configurations:
        sized = execution.model_copy(update={"micro_batch_size": micro_batch_size})
        trainer = make_trainer(golden, [step_of(groups)], sized, **options)
        batch = next(trainer.batches())
        feed = trainer.check_feed(batch)
        loss = trainer.accumulate(batch).item()
        gradient = full_gradient(trainer.engine)
        if trainer.engine.rank == 0:
            found.append((loss, gradient, feed.samples))
    return found


def buffers_and_logits(golden: Path, zero_stage: int) -> tuple[dict[str, Tensor], Tensor]:
    """The language model's buffers, and the logits of one micro-batch, in bf16."""
    execution = Execution(dtype="bf16", zero_stage=zero_stage, micro_batch_size=4)
    trainer = make_trainer(golden, [step_of(((0, 1, 2, 3),))], execution)
    engine = trainer.engine
    found: list[Tensor] = []
    lm_head = engine.model.language_model.lm_head
    lm_head.register_forward_hook(lambda _module, _inputs, output: found.append(output.detach()))
    trainer.accumulate(next(trainer.batches()))
    buffers = dict(engine.model.language_model.named_buffers())
    return {name: value.clone() for name, value in buffers.items()}, found[0].float().clone()


def curve(
    golden: Path,
    execution: Execution,
    *,
    case: str = "clip_dci",
    stage: int = 2,
) -> list[tuple[float, float]]:
    """Loss and gradient norm (before clipping) of every recorded optimizer step."""
    recording = Recording.read(golden, golden / case / f"stage{stage}.json")
    samples = Annotations.load(golden / "data" / f"stage{stage}_train.json")
    trainer = make_trainer(golden, recording.steps(samples), execution, case=case, stage=stage)
    found = []
    for batch in trainer.batches():
        trainer.check_feed(batch)
        record = trainer.step(batch)
        found.append((record.loss, record.grad_norm))
    return found


def fp16_steps(
    golden: Path,
    zero_stage: int,
    folder: Path,
    *,
    overflow: Semantics,
    scale_power: int,
    split_at: int | None = None,
    cpu_offload: bool = False,
) -> tuple[list[StepMetrics], int, dict[str, Any] | None]:
    """Four recorded steps in fp16 from a loss scale of 2 ** scale_power: metrics, optimizer steps
    and the scaler's state.

    `split_at`: save into `folder` before that step, and resume in a fresh trainer from the
    checkpoint.
    """
    # DeepSpeed on a CPU says no to fp16, but gloo and the CPU can do it.
    accelerator = get_accelerator()
    accelerator.is_fp16_supported = lambda: True
    accelerator.supported_dtypes = lambda: [torch.float32, torch.bfloat16, torch.float16]
    process_group.INITIAL_SCALE_POWER = scale_power
    recording = Recording.read(golden, golden / "clip_dci" / "stage2.json")
    steps = recording.steps(Annotations.load(golden / "data" / "stage2_train.json"))[:4]
    execution = Execution(dtype="fp16", zero_stage=zero_stage, cpu_offload=cpu_offload)

    def fresh() -> Trainer:
        trainer = make_trainer(golden, steps, execution)
        trainer.overflow = overflow
        return trainer

    trainer, records = fresh(), []
    for index in range(len(steps)):
        if index == split_at:
            skipped = index - trainer.optimizer_steps
            saves = Saves(trainer.engine, folder, run_sha256="0" * 64, keep=1, keep_hours=0)
            saves.begin(
                Cursor(
                    step=index,
                    optimizer_steps=trainer.optimizer_steps,
                    overflows_in_a_row=trainer.overflows_in_a_row,
                    summary=Summary(steps=index, skipped_steps=skipped, overflows=99),
                    records=Position(steps=index, metrics_bytes=99, feed_bytes=99),
                )
            )
            saves.finish()
            saved = folder / checkpoint_name(index)
            trainer, state = fresh(), read_checkpoint(saved, run_sha256="0" * 64)
            load_checkpoint(trainer.engine, saved, state)
            trainer.optimizer_steps = state.optimizer_steps
            trainer.overflows_in_a_row = state.overflows_in_a_row
        records.append(trainer.step(next(trainer.batches(index))))
    return records, trainer.optimizer_steps, trainer.engine.scaler_state()


def start_in_bf16(
    golden: Path, zero_stage: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """A LoRA run in bf16: its initial weights, its masters at step 0 under the same names, and four
    losses.
    """
    recording = Recording.read(golden, golden / "clip_dci" / "stage2.json")
    math = recording.math.model_copy(update={"lora": Lora(r=4, alpha=8)})
    connector = read_weights(golden / "clip_dci" / "projector_after_stage1.safetensors")
    # Not exact in bf16.
    init = {f"connector.{name}": value + 1e-5 for name, value in connector.items()}
    adapters = initial_lora(load_base(math, Roots()), 7)
    init |= {f"lora.{name}": value for name, value in adapters.items()}
    steps = recording.steps(Annotations.load(golden / "data" / "stage2_train.json"))[:4]
    execution = Execution(dtype="bf16", zero_stage=zero_stage, activation_checkpointing=True)
    trainer = make_trainer(golden, steps, execution, math=math, init=init)
    wanted = init_by_parameter(init)
    fill_masters(trainer.engine, wanted)
    masters = {name: trainer.engine.full_weight(name).clone() for name in trainer.engine.trainable}
    return wanted, masters, [trainer.step(batch).loss for batch in trainer.batches()]
