"""What the planner says that ZeRO keeps, against DeepSpeed's own tensors on two ranks."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from densekit.planner.memory import Layout, Row
from densekit.planner.model_states import States
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of
from densekit.spec.execution import Execution
from densekit.spec.roots import Roots
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.ranks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WORLD = 2


def tiny_layout(stage: Any) -> tuple[Any, Layout]:
    recipe = load_recipe("tiny_stage2")
    nowhere = Roots(models=Path("nowhere"), cache=Path("nowhere"))
    layout = Layout(
        world=WORLD,
        zero_stage=stage,
        checkpointing=False,
        offload=False,
        dtype="bf16",
        attention="sdpa",
        trains="full",
        device="cpu",
    )
    return shape_of(recipe, nowhere), layout


def kept_by_deepspeed(stage: int) -> dict[str, int]:
    """Bytes of this rank after a row of a step, and of the moments after the step."""
    sys.path.insert(0, str(BENCHMARKS))
    import torch
    from memory_trace import SETTINGS, build, row_inputs

    from densekit.train.engines.process_group import make_accelerator
    from densekit.train.engines.zero import ZeroEngine

    torch.set_num_threads(1)
    execution = Execution(device="cpu", dtype="bf16", zero_stage=stage)  # type: ignore[arg-type]
    accelerator = make_accelerator(execution)
    shape, layout = tiny_layout(stage)
    model = build(
        shape, load_recipe("tiny_stage2").connector.model_dump(mode="json"), layout
    ).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.vision_tower.model.embeddings.position_ids = torch.arange(shape.tower.tokens)[None]
    for buffer in model.language_model.buffers():
        buffer.fill_(0.5)
    engine = ZeroEngine(model, SETTINGS, accelerator, execution)
    inputs = row_inputs(shape, Row(samples=2, tokens=200, images=2, supervised=20))
    inputs["cu_seq_lens"] = torch.tensor([0, 100, 200], dtype=torch.int32)
    engine.forward_backward(dict(inputs), last=False)
    zero = engine.zero

    def size(*tensors: torch.Tensor) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    if stage == 2:
        kept = {
            "weights": size(*zero.bit16_groups_flat),
            "masters": size(*zero.single_partition_of_fp32_groups),
            "gradients": size(
                *(group.flat_partition for group in zero.averaged_gradients.values())
            ),
        }
    else:
        (bucket,) = zero.ipg_buckets.values()
        kept = {
            "weights": size(zero.lp_param_buffer),
            "masters": size(*zero.fp32_partitioned_groups_flat),
            "gradients": size(zero.grad_partitions_flat_buffer),
            "bucket": size(bucket.buffer),
        }
    engine.forward_backward(dict(inputs), last=True)
    engine.update(1.0)
    moments = [value for state in zero.optimizer.state.values() for value in state.values()]
    kept["moments"] = size(
        *(value for value in moments if isinstance(value, torch.Tensor) and value.numel() > 1)
    )
    kept["world"] = int(os.environ["WORLD_SIZE"])
    return kept


@pytest.mark.parametrize("stage", [2, 3])
def test_states_are_those_of_deepspeed(stage: int) -> None:
    shape, layout = tiny_layout(stage)
    states = States(shape, layout)
    for outcome in run_ranks(WORLD, kept_by_deepspeed, stage):
        kept = outcome.returned
        assert kept.pop("world") == WORLD
        # Partitions are padded, parameter by parameter in ZeRO-3.
        near = {"rel": 0.001}
        assert kept["weights"] == pytest.approx(
            states.weights - layout.width * states.tower, **near
        )
        assert kept["gradients"] == pytest.approx(states.gradients, **near)
        assert kept["masters"] + kept["moments"] == pytest.approx(states.optimiser, **near)
        if stage == 3:
            assert kept["bucket"] == states.buffers("forward pass")["ZeRO buckets"]
