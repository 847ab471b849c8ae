"""Compares the planner's memory model with traced steps of densekit's own training, model by model.

Traced (memory_trace.py): every tensor of one step on one GPU, at full depth. `replicated` is
ReplicatedEngine with AdamW; `half` keeps what ZeRO keeps: half weights, fp32 masters and gradients.
Not traced, and left out of the comparison: sharding (division by the number of ranks), DeepSpeed's
buffers, CUDA's and NCCL's own memory, fragmentation, the workspace of GPU attention kernels,
offloading. Exits with 1 when a part, a moment or the peak differs by more than 5 %; a part below
0.2 % of the peak may.

With `--device cuda` one GPU trains a model of random weights and the allocator's peak is compared
(memory_cuda.py).
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch

from densekit.planner.memory import TOWER, Layout, Row, memory_of
from densekit.planner.memory_trace.model import KEPT
from densekit.planner.model_states import States
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import ModelShape, shape_of
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Trains

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
"""Tokens beside the image, and supervised ones, of a sample of each stage."""
NOWHERE = Roots()
ADAMW = "temporaries of AdamW"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One step to compare."""

    name: str
    shape: ModelShape
    connector: dict[str, Any]
    layout: Layout
    row: Row


def cases(names: list[str], *, samples: int, layers: int | None) -> list[Case]:
    """Each recipe with and without checkpointing, as ReplicatedEngine and as ZeRO keep it."""
    found = []
    for name in names:
        recipe = load_recipe(name)
        shape = shape_of(recipe, NOWHERE)
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
                        shape=shape,
                        connector=recipe.connector.model_dump(mode="json"),
                        layout=Layout(
                            world=1,
                            zero_stage=zero_stage,
                            checkpointing=checkpointing,
                            offload=False,
                            dtype="bf16",
                            attention="sdpa",
                            trains=trains(recipe),
                            lora_r=recipe.lora.r if recipe.lora else 0,
                            device="cpu",
                            accumulates=False,
                        ),
                        row=row_of(recipe.stage, shape, samples),
                    )
                )
    return found


def trains(recipe: Recipe) -> Trains:
    """What a recipe trains."""
    return "connector" if recipe.stage == 1 else "lora" if recipe.lora else "full"


def row_of(stage: int, shape: ModelShape, samples: int) -> Row:
    """A row of equal samples with an image each."""
    text, supervised = TEXT[stage]
    tokens = samples * (shape.image_tokens + text)
    return Row(samples=samples, tokens=tokens, images=samples, supervised=samples * supervised)


def modelled(case: Case) -> dict[str, int]:
    """The model's figures under the names of `traced`, without what is not traced."""
    memory = memory_of(case.shape, case.layout, case.row)
    states = States(case.shape, case.layout)
    totals = {}
    for moment, parts in memory.moments.items():
        untraced = sum(size for name, size in states.buffers(moment).items() if name != ADAMW)
        totals[moment] = sum(parts.values()) - untraced
    before = totals.pop(KEPT)
    tower = memory.moments[KEPT][TOWER]
    fixed = (
        states.weights
        + states.optimiser
        + (states.gradients if case.layout.zero_stage else 0)
        + tower
    )
    ends = [totals.pop(f"backward pass of the {place} layer") for place in ("first", "last")]
    # The root that AdamW makes, of all weights at once, as it does on a GPU.
    totals["update"] += 4 * states.trained - states.buffers("update")[ADAMW]
    return {
        "weights": states.weights,
        "gradients": states.gradients,
        "optimiser": states.optimiser,
        "tower": tower,
        "language model": before - fixed,
        "logits": totals["loss"] - before,
        **{f"peak of {moment}": size for moment, size in totals.items()},
        "peak of backward pass of the layers": max(ends),
        "peak": max(*totals.values(), *ends),
    }


def traced(case: Case) -> dict[str, int]:
    """The same figures from a traced step."""
    from memory_trace import trace

    tracker = trace(case.shape, case.connector, case.layout, case.row)
    begun = {moment: kinds["Total"] for moment, kinds in tracker.begun.items()}
    start, update = tracker.begun["start"], tracker.begun["update"]
    weights = start["Parameter"] + start["Buffer"]
    trained = States(case.shape, case.layout).trained
    half = bool(case.layout.zero_stage)
    # Under checkpointing the row's embeddings are a leaf, and the tracker's hooks hold it with its
    # gradient after the step; without the tracker nothing of the row is left.
    tracker.peaks["update"] -= update["Activation"] + update["Temp"]
    return {
        "weights": weights,
        "gradients": 4 * trained if half else update["Gradient"],
        "optimiser": start["Optstate"] + (4 * trained if half else 0),
        "tower": begun["forward pass"] - weights - start["Optstate"] - (8 * trained if half else 0),
        "language model": begun["loss"] - begun["forward pass"],
        "logits": tracker.peaks["loss"] - begun["loss"],
        **{
            f"peak of {moment}": size
            for moment, size in tracker.peaks.items()
            if moment not in ("start", "end")
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
    row = {name: getattr(case.row, name) for name in ("samples", "tokens", "images", "supervised")}
    return {
        "name": case.name,
        "layers": case.shape.language.layers,
        "row": row,
        "figures": figures,
        "off": off,
        "seconds": round(seconds, 1),
    }


def print_result(result: dict[str, Any]) -> None:
    """One case for a reader."""
    row = result["row"]
    print(
        f"\n{result['name']}: {result['layers']} layers, {row['samples']} samples, {row['tokens']} tokens, "
        f"{row['supervised']} supervised ({result['seconds']:.0f} s)"
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
    parser.add_argument("--samples", type=int, default=4, help="samples of the row")
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
