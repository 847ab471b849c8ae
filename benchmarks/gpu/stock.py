"""A training step beside stock transformers: the same weights, samples, dtype and optimizer.

`densekit` packs; `padded` is stock Llava on a right-padded batch, `padding_free` stock Llava on the
samples end to end, which is what a reader who minds speed would take: with flash-attn where it is
installed, else with SDPA and transformers' own dense mask. Both models are SCI, the connector that
stock Llava has too (benchmarks/twins.py).
"""

import statistics
from typing import Any

import torch
from peft import inject_adapter_in_model
from torch import nn
from train_step import Side, gradient_difference, peak_bytes, timed
from transformers import LlavaForConditionalGeneration
from twins import (
    Size,
    make_models,
    our_inputs,
    stock_inputs,
    stock_inputs_padding_free,
    stock_to_ours,
)

from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.planner.workload import Workload
from densekit.spec.flops import AverageSample, model_flops
from densekit.spec.math import Lora
from densekit.train.lora import lora_config
from gpu.made import MadeReader, workload_of
from gpu.peak import here, usable_bytes
from gpu.steps import SAMPLES, execution_here

TRAINED = {"stage1": ("projector",), "full": ("projector", "language_model")}
"""How the names of what is trained begin; with LoRA that is the projector and the adapters."""
TOLERANCE = 1e-5
"""Relative difference of gradients in fp32."""
BASELINES = ("padded", "padding_free")
FLASH = "flash_attention_2"


def measure_stock(size: str, device: str, steps: int) -> dict[str, Any]:
    """Seconds, MFU and peak memory of a step, by what is trained."""
    stages = {what: _measure(what, size, device, steps) for what in ("stage1", "lora", "full")}
    return {"ok": all(stage["ok"] for stage in stages.values()), "stages": stages}


def _measure(what: str, size: str, device: str, steps: int) -> dict[str, Any]:
    execution = execution_here(device)
    dtype, where = TORCH_DTYPES[execution.dtype], torch.device(device)
    samples = SAMPLES[what] if device == "cuda" else 2
    workload, shape = _cut_to_fit(what, size, device)
    reader = MadeReader(workload=workload)
    sequences = [reader.sequence(number)[0] for number in range(samples)]
    images = [reader.image(number).pixels for number in range(samples)]
    ours, stock = make_models(shape, where, dtype)
    ours.use_kernel(execution.attention)
    if what == "lora":
        _add_lora(ours, stock)
    if device == "cuda" and what != "stage1":
        ours.checkpoint_activations()
        language_model = stock.model.language_model
        language_model.gradient_checkpointing_enable({"use_reentrant": False})
        language_model.enable_input_require_grads()
    flash = device == "cuda" and execution.attention == "flash"
    if flash:
        stock.model.language_model.set_attn_implementation(FLASH)
    micro_batch, pixels = our_inputs(sequences, list(images), shape, where, dtype)
    inputs: dict[str, dict[str, Any]] = {
        "densekit": {"micro_batch": micro_batch, "pixel_values": pixels},
        "padded": stock_inputs(sequences, pixels, shape),
        "padding_free": stock_inputs_padding_free(sequences, pixels, shape, flash=flash),
    }

    def side(name: str) -> Side:
        model, rename = (ours, str) if name == "densekit" else (stock, stock_to_ours)
        return Side(model, [(inputs[name], 1.0)], rename, lambda found: _is_trained(found, what))

    difference = None
    if execution.dtype == "fp32":
        difference = max(gradient_difference(side("densekit"), side(name)) for name in BASELINES)
    seconds, memory = {}, {}
    for name in inputs:  # one after the other: two optimizers of a 7B model fit no GPU
        one = side(name)
        timed(one.step, where)
        seconds[name] = statistics.median(timed(one.step, where) for _ in range(steps))
        memory[name] = peak_bytes(one.step, where)
        one.optimizer.zero_grad(set_to_none=True)
        del one
    sample = AverageSample(
        tokens=len(micro_batch.input_ids) / samples,
        squares=sum(len(each.input_ids) ** 2 for each in sequences) / samples,
        images=1.0,
        label_positions=len(micro_batch.targets) / samples,
    )
    flops = model_flops(workload.model, sample, samples)
    gpu = here(device)
    result: dict[str, Any] = {
        "ok": difference is None or difference <= TOLERANCE,
        "attention": {
            "densekit": execution.attention,
            **dict.fromkeys(BASELINES, FLASH if flash else "sdpa"),
        },
        "layers": shape.blocks,
        "samples": samples,
        "tokens": len(micro_batch.input_ids),
        "padded_tokens": inputs["padded"]["input_ids"].numel(),
        "gradient_difference": difference,
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "time_ratio": {name: round(seconds["densekit"] / seconds[name], 3) for name in BASELINES},
        "peak_bytes": memory,
    }
    if gpu is not None:
        peak = gpu.flops[execution.dtype]
        result["mfu"] = {name: round(flops / s / peak, 4) for name, s in seconds.items()}
    return result


def _is_trained(name: str, what: str) -> bool:
    if what == "lora":
        return name.startswith("projector") or "lora_" in name
    return name.startswith(TRAINED[what])


def _cut_to_fit(what: str, size: str, device: str) -> tuple[Workload, Size]:
    """The recipe with SCI, and as many layers as fit with AdamW's states in the model's dtype."""
    layers: int | None = None
    while True:
        workload = workload_of(size, what, layers)[1]
        language, tower = workload.model.shape.language, workload.model.shape.tower
        middle = (tower.layers // 3, 2 * tower.layers // 3)
        connector = f"connector={{kind: sci, layers: [{middle[0]}, {middle[1]}]}}"
        workload = workload_of(size, what, layers, [connector])[1]
        model = workload.model
        if device == "cpu" or 2 * (4 * model.trained + model.frozen) < 0.7 * usable_bytes():
            break
        layers = language.layers - 2
    return workload, Size(
        hidden=language.hidden,
        mlp=language.intermediate,
        blocks=language.layers,
        heads=language.heads,
        vocabulary=language.vocab,
        tower_hidden=tower.hidden,
        tower_mlp=tower.intermediate,
        tower_blocks=tower.layers,
        tower_heads=tower.heads,
        image_size=tower.image_size,
        patch=tower.patch_size,
        layers=middle,
        batch=0,
    )


def _add_lora(
    ours: DenseConnectorForConditionalGeneration, stock: LlavaForConditionalGeneration
) -> None:
    """The same adapters, without dropout, in both models."""
    config = lora_config(ours, Lora(r=16, alpha=32, dropout=0.0))
    for model in (ours.language_model, stock.model.language_model):
        model.requires_grad_(False)
        inject_adapter_in_model(config, model)
    theirs = dict(_adapters(stock, stock_to_ours))
    for name, parameter in _adapters(ours, str):
        nn.init.normal_(parameter, std=0.02)  # B is zero: A would have no gradient to compare
        theirs[name].data = parameter.data


def _adapters(model: nn.Module, rename: Any) -> list[tuple[str, nn.Parameter]]:
    return [
        (rename(name), parameter) for name, parameter in model.named_parameters() if "lora_" in name
    ]
