"""Compares the planner's memory model with traced steps of densekit's own training, model by model.

Traced (memory_trace.py): every tensor of one step on one GPU, at full depth. `replicated` is
ReplicatedEngine with AdamW; `half` keeps what ZeRO keeps: weights in half precision, fp32 master
weights and gradients.
Not traced, and left out of the comparison: sharding (division by the number of ranks), DeepSpeed's
buffers, CUDA's and NCCL's own memory, fragmentation, the workspace of GPU attention kernels,
CPU offload. Exits with 1 when a part, a phase or the peak differs by more than 5 %; a part below
0.2 % of the peak may.

With `--device cuda` one GPU trains a model of random weights and the allocator's peak is compared
(memory_cuda.py).
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from densekit.planner.memory import TOWER, memory_of
from densekit.planner.memory_trace.model import KEPT
from densekit.planner.model_states import UPDATE, ModelStates
from densekit.planner.workload import MicroBatchShape
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import ModelShape, shape_of
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.trained_model import TrainedModel

TOLERANCE = 0.05
SMALL = 0.002
"""Of the peak: a part below it may be off by more."""
RECIPES = (
    "phi2_stage1",
    "phi2_stage2",
    "vicuna7b_stage1",
    "vicuna7b_stage2",
    "vicuna7b_clip_stage1",
    "vicuna7b_clip_stage2",
    "vicuna7b_clip_none_stage2_lora",
    "vicuna13b_stage1",
    "vicuna13b_stage2",
    "llama3_8b_stage1",
    "llama3_8b_stage2",
    "yi34b_stage1",
    "yi34b_stage2_lora",
    "llama3_70b_stage1",
    "llama3_70b_stage2_lora",
)
TEXT = {1: (60, 20), 2: (340, 160)}
"""Tokens beside the image, and label positions, of a sample of each stage."""
ADAMW = "temporaries of AdamW"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One step to compare."""

    name: str
    model: TrainedModel
    connector: Connector
    execution: Execution
    micro_batch: MicroBatchShape


def cases(names: list[str], *, samples: int, layers: int | None) -> list[Case]:
    """Each recipe with and without activation checkpointing, replicated and as ZeRO keeps it."""
    found = []
    for name in names:
        recipe = load_recipe(name)
        shape = shape_of(recipe)
        if layers:
            shape = replace(shape, language=replace(shape.language, layers=layers))
        for zero_stage in (0, 2):
            for checkpointing in (False, True):
                labels = [
                    "half" if zero_stage else "replicated",
                    "checkpointing" if checkpointing else "kept",
                ]
                found.append(
                    Case(
                        name=" ".join([name, *labels]),
                        model=TrainedModel.of(recipe, shape),
                        connector=recipe.connector,
                        execution=Execution(
                            dtype="bf16",
                            zero_stage=zero_stage,
                            activation_checkpointing=checkpointing,
                        ),
                        micro_batch=micro_batch_of(recipe.stage, shape, samples),
                    )
                )
    return found


def micro_batch_of(stage: int, shape: ModelShape, samples: int) -> MicroBatchShape:
    """A micro-batch of equal samples with an image each."""
    text, labels = TEXT[stage]
    return MicroBatchShape(
        samples=samples,
        tokens=samples * (shape.image_tokens + text),
        images=samples,
        label_positions=samples * labels,
    )


def modelled(case: Case) -> dict[str, int]:
    """The model's figures under the names of `traced`, without what is not traced."""
    memory = memory_of(case.model, case.execution, case.micro_batch, accumulates=False)
    states = ModelStates(case.model, case.execution)
    totals = {}
    for phase, parts in memory.phases.items():
        untraced = sum(size for name, size in states.buffers(phase).items() if name != ADAMW)
        totals[phase] = sum(parts.values()) - untraced
    before = totals.pop(KEPT)
    shape = case.model.shape
    views = case.micro_batch.images * shape.connector.views
    # Images come at the size of the second tower; that copy too is freed after the towers.
    larger = 3 * (shape.pixels**2 - shape.tower.image_size**2) * states.width * views
    tower = memory.phases[KEPT][TOWER] + larger
    gradients = states.gradients if case.execution.zero_stage else 0
    fixed = states.weights + states.optimizer + gradients + tower
    # The engine's copy of the pixels in its dtype is freed after the tower; the model keeps it to
    # the end of the step.
    copied = 3 * shape.tower.image_size**2 * states.width * views
    ends = [totals.pop(f"backward pass of the {layer} layer") for layer in ("first", "last")]
    # The root that AdamW makes, of all weights at once, as it does on a GPU.
    totals[UPDATE] += 4 * states.trained - states.buffers(UPDATE)[ADAMW]
    return {
        "weights": states.weights,
        "gradients": states.gradients,
        "optimizer": states.optimizer,
        "tower": tower,
        "language model": before - fixed - copied,
        "logits": totals["loss"] - before,
        **{f"peak of {phase}": size for phase, size in totals.items()},
        "peak of backward pass of the layers": max(ends),
        "peak": max(*totals.values(), *ends),
    }


def traced(case: Case) -> dict[str, int]:
    """The same figures from a traced step."""
    from memory_trace import trace

    tracker = trace(case.model, case.connector, case.execution, case.micro_batch)
    begun = {phase: kinds["Total"] for phase, kinds in tracker.begun.items()}
    start, update = tracker.begun["start"], tracker.begun[UPDATE]
    weights = start["Parameter"] + start["Buffer"]
    trained = case.model.trained
    half = bool(case.execution.zero_stage)
    # Under activation checkpointing the embeddings are a leaf, and the tracker's hooks hold it and
    # its gradient after the step; without the tracker nothing of the micro-batch is left.
    tracker.peaks[UPDATE] -= update["Activation"] + update["Temp"]
    return {
        "weights": weights,
        "gradients": 4 * trained if half else update["Gradient"],
        "optimizer": start["Optstate"] + (4 * trained if half else 0),
        "tower": begun["forward pass"] - weights - start["Optstate"] - (8 * trained if half else 0),
        "language model": begun["loss"] - begun["forward pass"],
        "logits": tracker.peaks["loss"] - begun["loss"],
        **{
            f"peak of {phase}": size
            for phase, size in tracker.peaks.items()
            if phase not in ("start", "end")
        },
        "peak": max(tracker.peaks.values()),
    }


def compare(case: Case) -> dict[str, Any]:
    """Both sides and their ratio (model / traced) by figure."""
    begun = time.perf_counter()
    found, expected = traced(case), modelled(case)
    seconds = time.perf_counter() - begun
    figures = {
        name: {
            "model": expected[name],
            "traced": size,
            "ratio": round(expected[name] / size, 4) if size else None,
        }
        for name, size in found.items()
    }
    peak = found["peak"]
    off = [
        name
        for name, size in found.items()
        if abs(expected[name] - size) > max(TOLERANCE * size, SMALL * peak if name != "peak" else 0)
    ]
    return {
        "name": case.name,
        "layers": case.model.shape.language.layers,
        "micro_batch": asdict(case.micro_batch),
        "figures": figures,
        "off": off,
        "seconds": round(seconds, 1),
    }


def print_result(result: dict[str, Any]) -> None:
    """One case for a reader."""
    size = result["micro_batch"]
    print(
        f"\n{result['name']}: {result['layers']} layers, {size['samples']} samples, "
        f"{size['tokens']} tokens, {size['label_positions']} label positions "
        f"({result['seconds']:.0f} s)"
    )
    for name, values in result["figures"].items():
        ratio = "" if values["ratio"] is None else f"{values['ratio']:8.3f}"
        mark = "  OFF" if name in result["off"] else ""
        model, found = (values[side] / 2**30 for side in ("model", "traced"))
        print(f"  {name:38}{model:10.3f}{found:10.3f} GiB {ratio}{mark}", flush=True)


def main() -> int:
    """Compare, print, and fail when the model is off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="cases whose name contains this"
    )
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        help="recipes to take (default: the paper's models)",
    )
    parser.add_argument("--samples", type=int, default=4, help="samples of the micro-batch")
    parser.add_argument(
        "--layers", type=int, help="trace so many layers of the language model instead of all"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--size", choices=("7b", "tiny"), default="7b", help="model of --device cuda"
    )
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if arguments.device == "cuda":
        from memory_cuda import compare_on_cuda

        results = compare_on_cuda(arguments.size, arguments.samples)
    else:
        found = cases(
            arguments.recipe or list(RECIPES), samples=arguments.samples, layers=arguments.layers
        )
        chosen = [case for case in found if all(part in case.name for part in arguments.only)]
        results = []
        for case in chosen:
            results.append(compare(case))
            if not arguments.json:
                print_result(results[-1])
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "results": results}, indent=1))
    off = [f"{result['name']}: {', '.join(result['off'])}" for result in results if result["off"]]
    for line in off:
        print(f"more than {TOLERANCE:.0%} off: {line}", file=sys.stderr)
    return 1 if off or not results else 0


if __name__ == "__main__":
    raise SystemExit(main())
