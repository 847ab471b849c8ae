"""Times one training step of densekit beside transformers' own LlavaForConditionalGeneration: same
model, same samples.

Stock Llava concatenates a list of vision layers before its projector, which is densekit's SCI
connector. Both models share their weights. densekit lays the samples end to end (on CUDA too: SDPA
segment by segment) and runs lm_head on label positions only. Stock Llava, with its own loss over
full logits, gets the samples twice: as a right-padded batch with an attention mask ("padded"), and
one after the other without any padding, their losses weighted as in the batch ("alone").

Per stage the gradients of all trainable parameters are compared (in fp32 the run fails above 1e-5),
then forward, backward and AdamW step are timed in turns in one process: on a CPU as CPU time of one
thread, so that a busy machine does not decide, on CUDA as wall time. `--vocabulary` sets how large
lm_head is; the sizes' own keep its share that of a 7B model. Memory is what one step allocates at
its peak above the model and the optimiser state: on CUDA max_memory_allocated minus
memory_allocated before the step, on CPU the highest running sum of the allocator's own events,
which torch.profiler records. It counts every tensor and buffer from torch's allocator, and repeats
exactly; the resident size of the process would add the allocator's caches and whatever earlier
steps left behind.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from twins import (
    SIZES,
    make_models,
    make_samples,
    our_inputs,
    stock_inputs,
    stock_inputs_alone,
    stock_to_ours,
)

TOLERANCE = 1e-5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STAGES = {1: "connector", 2: "connector and language model"}
TRAINED: dict[int, tuple[str, ...]] = {1: ("projector",), 2: ("projector", "language_model")}
"""Of a stage, how the names of what is trained begin."""
BASELINES = ("padded", "alone")
Inputs = list[tuple[dict[str, Any], float]]
"""Arguments of each forward pass, and what its loss weighs."""


class Side:
    """One of the two models with its inputs and optimiser."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        rename: Callable[[str], str],
        trained: Callable[[str], bool],
    ) -> None:
        """`trained`: whether a parameter of this name in densekit is."""
        self.model, self.inputs = model.train(), inputs
        self.parameters: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            ours = rename(name)
            parameter.requires_grad_(trained(ours))
            parameter.grad = None
            if parameter.requires_grad:
                self.parameters[ours] = parameter
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-6)

    def gradients(self) -> float:
        """Forward and backward; returns the loss."""
        total = 0.0
        for inputs, weight in self.inputs:
            loss = self.model(**inputs).loss * weight
            if loss.requires_grad:  # stage 1 trains nothing of a sample without an image
                loss.backward()
            total += float(loss.detach())
        return total

    def step(self) -> None:
        """What is timed."""
        self.gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def gradient_difference(ours: Side, stock: Side) -> float:
    """Relative L2 distance of the two gradients over all trainable parameters."""
    ours.gradients()
    stock.gradients()
    assert ours.parameters.keys() == stock.parameters.keys()
    difference = norm = 0.0
    for name, parameter in stock.parameters.items():
        expected, found = parameter.grad, ours.parameters[name].grad
        assert expected is not None and found is not None, name
        difference += float((found.double() - expected.double()).square().sum())
        norm += float(expected.double().square().sum())
    for side in (ours, stock):
        side.optimizer.zero_grad(set_to_none=True)
    return float((difference / norm) ** 0.5)


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: CPU time on a CPU, wall time on CUDA."""
    if device.type == "cpu":
        begun = time.process_time()
        step()
        return time.process_time() - begun
    begun = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """What one call allocates at its peak, above what is allocated before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    now = peak = 0
    for _, change in sorted(
        _allocations(recorded.profiler.kineto_results.experimental_event_tree())
    ):
        now += change
        peak = max(peak, now)
    return peak


def _allocations(events: list[Any]) -> Iterator[tuple[int, int]]:
    for event in events:
        if type(event.extra_fields).__name__ == "_ExtraFields_Allocation":
            yield event.start_time_ns, event.extra_fields.alloc_size
        yield from _allocations(event.children)


def measure(sides: dict[str, Side], steps: int, device: torch.device) -> dict[str, Any]:
    """Gradients, times in turns and memory of one stage; ratios are densekit / baseline."""
    difference = max(gradient_difference(sides["densekit"], sides[name]) for name in BASELINES)
    for side in sides.values():  # warm-up, and the optimiser's state comes into being
        timed(side.step, device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(steps):
        for name, side in sides.items():
            times[name].append(timed(side.step, device))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: peak_bytes(side.step, device) for name, side in sides.items()}
    return {
        "gradient_difference": difference,
        "seconds": seconds,
        "time_ratio": {name: seconds["densekit"] / seconds[name] for name in BASELINES},
        "peak_bytes": memory,
        "memory_ratio": {name: memory["densekit"] / memory[name] for name in BASELINES},
    }


def run(
    size_name: str,
    *,
    device: str,
    dtype: str,
    batch: int | None,
    steps: int,
    vocabulary: int | None,
) -> dict[str, Any]:
    """Measure both stages; plain values for --json."""
    size, where, kind = SIZES[size_name], torch.device(device), DTYPES[dtype]
    if vocabulary is not None:
        size = replace(size, vocabulary=vocabulary)
    if where.type == "cpu":
        torch.set_num_threads(1)
    ours, stock = make_models(size, where, kind)
    sequences, images = make_samples(size, batch or size.batch)
    micro_batch, pixels = our_inputs(sequences, images, size, where, kind)
    packed: Inputs = [({"micro_batch": micro_batch, "pixel_values": pixels}, 1.0)]
    padded = stock_inputs(sequences, pixels, size)
    alone = stock_inputs_alone(sequences, images, pixels, size)
    stages = {}
    for stage in STAGES:
        trained = partial(_begins, TRAINED[stage])
        sides = {
            "densekit": Side(ours, packed, str, trained),
            "padded": Side(stock, [(padded, 1.0)], stock_to_ours, trained),
            "alone": Side(stock, alone, stock_to_ours, trained),
        }
        stages[str(stage)] = measure(sides, steps, where)
    return {
        "size": size_name,
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "steps": steps,
        "samples": len(sequences),
        "images": sum(image is not None for image in images),
        "tokens": len(micro_batch.input_ids),
        "padded_tokens": padded["input_ids"].numel(),
        "supervised_tokens": len(micro_batch.targets),
        "parameters": sum(parameter.numel() for parameter in stock.parameters()),
        "stages": stages,
    }


def _begins(starts: tuple[str, ...], name: str) -> bool:
    return name.startswith(starts)


def print_table(result: dict[str, Any]) -> None:
    """The numbers for a reader."""
    print(
        f"{result['size']} ({result['parameters'] / 1e6:.1f} M parameters), {result['dtype']}, "
        f"{result['device']}, "
        f"{result['threads']} threads; {result['samples']} samples, {result['images']} with an "
        "image: "
        f"{result['tokens']} tokens packed, {result['padded_tokens']} padded, "
        f"{result['supervised_tokens']} label positions"
    )
    names = ("densekit", *BASELINES)
    print(f"{'stage':36}{'':12}" + "".join(f"{name:>12}" for name in names))
    for stage, values in result["stages"].items():
        seconds, memory = values["seconds"], values["peak_bytes"]
        label = f"{stage} ({STAGES[int(stage)]})"
        print(f"{label:36}{'step':12}" + "".join(f"{seconds[name]:>10.3f} s" for name in names))
        print(f"{'':48}{'':12}" + _ratios(values["time_ratio"]))
        print(
            f"{'':36}{'memory':12}" + "".join(f"{memory[name] / 2**20:>8.1f} MiB" for name in names)
        )
        print(f"{'':48}{'':12}" + _ratios(values["memory_ratio"]))
        print(f"{'':36}{'gradients':12}relative difference {values['gradient_difference']:.1e}")


def _ratios(values: dict[str, float]) -> str:
    """densekit / baseline, below each baseline."""
    return "".join(f"{f'x {values[name]:.2f}':>12}" for name in BASELINES)


def main() -> int:
    """Measure, print, and fail when fp32 gradients disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--batch", type=int, help="samples per step (default: the size's own)")
    parser.add_argument("--vocabulary", type=int, help="tokens (default: the size's own)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per side")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args()
    result = run(
        arguments.size,
        device=arguments.device,
        dtype=arguments.dtype,
        batch=arguments.batch,
        steps=arguments.steps,
        vocabulary=arguments.vocabulary,
    )
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)
    worst = max(values["gradient_difference"] for values in result["stages"].values())
    if arguments.dtype == "fp32" and not worst <= TOLERANCE:
        message = (
            f"gradients differ by {worst:.1e}, more than {TOLERANCE:.0e}: "
            "the sides do not train the same model"
        )
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
