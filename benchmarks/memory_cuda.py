"""The memory model against torch's allocator: real training steps of a model with random weights on
one GPU.

What the model says about the whole process is compared without what lies outside the allocator's
count: CUDA's own memory and fragmentation.
"""

import time
from dataclasses import asdict
from typing import Any

import torch
from memory import TOLERANCE, micro_batch_of
from memory_trace import OPTIMIZER, language_config, tower_config

from densekit.model.config import DenseConnectorConfig
from densekit.model.micro_batch import MicroBatch
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.planner.memory import memory_of
from densekit.planner.model_states import ModelStates
from densekit.planner.workload import MicroBatchShape
from densekit.spec.architectures import LANGUAGE_MODELS, TOWERS, ModelShape, connector_shape
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Lora
from densekit.spec.trained_model import TrainedModel
from densekit.train.engines.ddp import ReplicatedEngine
from densekit.train.engines.process_group import make_accelerator
from densekit.train.lora import add_lora

PARTS = {
    "7b": (
        "lmsys/vicuna-7b-v1.5",
        "openai/clip-vit-large-patch14-336",
        ((*range(12),), (*range(12, 24),)),
    ),
    "tiny": ("tiny/language_model", "tiny/vision_tower", ((0, 1, 2), (3, 4, 5))),
}
LORA = Lora(r=128, alpha=256, dropout=0.05)


def compare_on_cuda(size: str, samples: int) -> list[dict[str, Any]]:
    """Stage 1, LoRA and stage 2 of a size, each with and without activation checkpointing, as
    figures of benchmarks/memory.py.
    """
    language, tower, groups = PARTS[size]
    connector = Connector(kind="dci", groups=groups)
    shape = ModelShape(
        language=LANGUAGE_MODELS[language],
        tower=TOWERS[tower],
        connector=connector_shape(connector, TOWERS[tower]),
    )
    results = []
    for trains, stage in (("connector", 1), ("lora", 2), ("full", 2)):
        for checkpointing in (True, False):
            model = TrainedModel(
                shape=shape,
                trains=trains,  # type: ignore[arg-type]
                lora_r=LORA.r if trains == "lora" else 0,
            )
            execution = Execution(
                device="cuda",
                dtype="bf16",
                activation_checkpointing=checkpointing,
            )
            micro_batch = micro_batch_of(stage, shape, samples)
            results.append(_compare(f"{size} {trains}", model, connector, execution, micro_batch))
    return results


def _compare(
    name: str,
    model: TrainedModel,
    connector: Connector,
    execution: Execution,
    micro_batch: MicroBatchShape,
) -> dict[str, Any]:
    memory = memory_of(model, execution, micro_batch, accumulates=False)
    outside = sum(ModelStates(model, execution).outside_allocator.values())
    expected = (
        max(sum(parts.values()) - parts["fragmentation"] for parts in memory.phases.values())
        - outside
    )
    begun = time.perf_counter()
    label = "checkpointing" if execution.activation_checkpointing else "kept"
    result: dict[str, Any] = {
        "name": f"{name} {label}",
        "layers": model.shape.language.layers,
        "micro_batch": asdict(micro_batch),
    }
    try:
        found = _peak(model, connector, execution, micro_batch)
        off = ["peak"] if abs(expected - found) > TOLERANCE * found else []
        figures = {
            "peak": {"model": expected, "traced": found, "ratio": round(expected / found, 4)}
        }
    except torch.cuda.OutOfMemoryError:
        # Then the model has to say so too.
        there = torch.cuda.get_device_properties(0).total_memory
        figures = {
            "does not fit": {
                "model": expected,
                "traced": there,
                "ratio": round(expected / there, 4),
            }
        }
        off = ["does not fit"] if memory.peak < (1 - TOLERANCE) * there else []
    torch.cuda.empty_cache()
    return {
        **result,
        "figures": figures,
        "off": off,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _peak(
    trained: TrainedModel,
    connector: Connector,
    execution: Execution,
    micro_batch: MicroBatchShape,
) -> int:
    """max_memory_allocated of a second step; the first one makes exp_avg and exp_avg_sq."""
    shape = trained.shape
    config = DenseConnectorConfig(
        text_config=language_config(shape.language),
        vision_config=tower_config(shape.tower),
        connector=connector.model_dump(mode="json"),
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if trained.trains == "full" else torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = DenseConnectorForConditionalGeneration(config)
            if trained.trains == "lora":
                add_lora(model, LORA)
    finally:
        torch.set_default_dtype(default)
    model.vision_tower.requires_grad_(False)
    if trained.trains == "connector":
        model.language_model.requires_grad_(False)
    engine = ReplicatedEngine(model.train(), OPTIMIZER, make_accelerator(execution), execution)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        engine.forward_backward(*_inputs(shape, micro_batch), last=True)
        engine.optimizer_step(1.0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _inputs(shape: ModelShape, size: MicroBatchShape) -> tuple[MicroBatch, torch.Tensor]:
    """Equal samples of random tokens, each with its image in front."""
    device, image, pixels = torch.device("cuda"), shape.image_tokens, shape.tower.image_size
    length = size.tokens // size.samples
    starts = torch.arange(size.samples, device=device) * length
    slots = (starts[:, None] + torch.arange(image, device=device)).flatten()
    last = torch.arange(size.label_positions // size.samples, device=device)
    labels, vocab = size.label_positions, shape.language.vocab
    micro_batch = MicroBatch(
        input_ids=torch.randint(vocab, (size.tokens,), device=device),
        position_ids=torch.arange(length, device=device).repeat(size.samples),
        cu_seqlens=torch.arange(size.samples + 1, dtype=torch.int32) * length,
        pixels=torch.zeros(0, 3, pixels, pixels, dtype=torch.uint8),
        image_slots=slots,
        feature_index=torch.arange(len(slots), device=device),
        label_positions=(starts[:, None] + length - 2 - last).flatten(),
        targets=torch.randint(vocab, (labels,), device=device),
        weights=torch.full((labels,), 1 / labels, device=device),
    )
    return micro_batch, torch.randn(size.images, 3, pixels, pixels, device=device)
