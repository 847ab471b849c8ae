"""The memory model against torch's allocator: real training steps of a model with random weights on
one GPU.

What the model says about the whole process is compared without what lies outside the allocator's
count: CUDA's own memory and fragmentation.
"""

import time
from typing import Any

import torch
from memory import TOLERANCE, row_of
from memory_trace import SETTINGS, language_config, tower_config

from densekit.model.config import DenseConnectorConfig
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.planner.memory import Layout, Row, memory_of
from densekit.planner.model_states import States
from densekit.spec.architectures import LANGUAGE_MODELS, TOWERS, ModelShape, connector_shape
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.train.engines.base import ReplicatedEngine
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
LORA = {"r": 128, "alpha": 256, "dropout": 0.05}


def compare_on_cuda(size: str, samples: int) -> list[dict[str, Any]]:
    """Stage 1, LoRA and stage 2 of a size, each with and without checkpointing, as figures of
    benchmarks/memory.py.
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
            layout = Layout(
                world=1,
                zero_stage=0,
                checkpointing=checkpointing,
                offload=False,
                dtype="bf16",
                attention="sdpa",
                trains=trains,
                lora_r=LORA["r"] if trains == "lora" else 0,
                accumulates=False,
            )
            results.append(
                _compare(
                    f"{size} {trains}", shape, connector, layout, row_of(stage, shape, samples)
                )
            )
    return results


def _compare(
    name: str, shape: ModelShape, connector: Connector, layout: Layout, row: Row
) -> dict[str, Any]:
    memory = memory_of(shape, layout, row)
    outside = States(shape, layout).buffers("")["CUDA context"]
    expected = (
        max(sum(parts.values()) - parts["fragmentation"] for parts in memory.moments.values())
        - outside
    )
    begun = time.perf_counter()
    label = "checkpointing" if layout.checkpointing else "kept"
    result: dict[str, Any] = {
        "name": f"{name} {label}",
        "layers": shape.language.layers,
        "row": {
            field: getattr(row, field) for field in ("samples", "tokens", "images", "supervised")
        },
    }
    try:
        found = _peak(shape, connector, layout, row)
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


def _peak(shape: ModelShape, connector: Connector, layout: Layout, row: Row) -> int:
    """max_memory_allocated of a second step; the first one makes the moments."""
    config = DenseConnectorConfig(
        text_config=language_config(shape.language),
        vision_config=tower_config(shape.tower),
        connector=connector.model_dump(mode="json"),
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if layout.trains == "full" else torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = DenseConnectorForConditionalGeneration(config)
            if layout.trains == "lora":
                add_lora(model, LORA)
    finally:
        torch.set_default_dtype(default)
    model.vision_tower.requires_grad_(False)
    if layout.trains == "connector":
        model.language_model.requires_grad_(False)
    execution = Execution(
        device="cuda", dtype="bf16", attention="sdpa", checkpointing=layout.checkpointing
    )
    engine = ReplicatedEngine(model.train(), SETTINGS, make_accelerator(execution), execution)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        engine.forward_backward(_inputs(shape, row), last=True)
        engine.update(1.0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _inputs(shape: ModelShape, row: Row) -> dict[str, torch.Tensor]:
    """A row of equal samples of random tokens, each with its image in front."""
    device, image, size = torch.device("cuda"), shape.image_tokens, shape.tower.image_size
    length = row.tokens // row.samples
    starts = torch.arange(row.samples, device=device) * length
    slots = (starts[:, None] + torch.arange(image, device=device)).flatten()
    last = torch.arange(row.supervised // row.samples, device=device)
    return {
        "input_ids": torch.randint(shape.language.vocab, (row.tokens,), device=device),
        "position_ids": torch.arange(length, device=device).repeat(row.samples),
        "cu_seq_lens": torch.arange(row.samples + 1, dtype=torch.int32) * length,
        "image_slots": slots,
        "feature_index": torch.arange(len(slots), device=device),
        "supervised": (starts[:, None] + length - 2 - last).flatten(),
        "targets": torch.randint(shape.language.vocab, (row.supervised,), device=device),
        "weights": torch.full((row.supervised,), 1 / row.supervised, device=device),
        "pixel_values": torch.randn(row.images, 3, size, size, device=device),
    }
