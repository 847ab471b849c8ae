"""What the planner says that ZeRO keeps, against DeepSpeed's own tensors on two ranks."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densekit.planner.model_states import ModelStates
from densekit.planner.workload import MicroBatchShape
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of
from densekit.spec.execution import Execution
from densekit.spec.roots import Roots
from densekit.spec.trained_model import TrainedModel
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.ranks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WORLD_SIZE = 2


def tiny(stage: Any) -> tuple[TrainedModel, Execution]:
    recipe = load_recipe("tiny_stage2")
    shape = shape_of(recipe, Roots(models=Path("nowhere"), cache=Path("nowhere")))
    execution = Execution(dtype="bf16", zero_stage=stage, world_size=WORLD_SIZE)
    return TrainedModel.of(recipe, shape), execution


def kept_by_deepspeed(stage: int) -> dict[str, int]:
    """Bytes of this rank after a micro-batch, and of exp_avg and exp_avg_sq after the step."""
    sys.path.insert(0, str(BENCHMARKS))
    import torch
    from memory_trace import OPTIMIZER, build, micro_batch_inputs

    from densekit.train.engines.process_group import make_accelerator
    from densekit.train.engines.zero import ZeroEngine

    torch.set_num_threads(1)
    trained, execution = tiny(stage)
    shape = trained.shape
    accelerator = make_accelerator(execution)
    model = build(trained, load_recipe("tiny_stage2").connector).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.vision_tower.model.embeddings.position_ids = torch.arange(shape.tower.tokens)[None]
    for buffer in model.language_model.buffers():
        buffer.fill_(0.5)
    engine = ZeroEngine(model, OPTIMIZER, accelerator, execution)
    micro_batch, pixel_values = micro_batch_inputs(
        shape, MicroBatchShape(samples=2, tokens=200, images=2, label_positions=20)
    )
    micro_batch = replace(micro_batch, cu_seqlens=torch.tensor([0, 100, 200], dtype=torch.int32))
    engine.forward_backward(micro_batch, pixel_values, last=False)
    zero = engine.zero

    def size(*tensors: torch.Tensor) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    if stage == 2:
        kept = {
            "weights": size(*zero.bit16_groups_flat),
            "master weights": size(*zero.single_partition_of_fp32_groups),
            "gradients": size(
                *(group.flat_partition for group in zero.averaged_gradients.values())
            ),
        }
    else:
        (bucket,) = zero.ipg_buckets.values()
        kept = {
            "weights": size(zero.lp_param_buffer),
            "master weights": size(*zero.fp32_partitioned_groups_flat),
            "gradients": size(zero.grad_partitions_flat_buffer),
            "bucket": size(bucket.buffer),
        }
    engine.forward_backward(micro_batch, pixel_values, last=True)
    engine.optimizer_step(1.0)
    states = [value for state in zero.optimizer.state.values() for value in state.values()]
    kept["exp_avg and exp_avg_sq"] = size(
        *(value for value in states if isinstance(value, torch.Tensor) and value.numel() > 1)
    )
    kept["world_size"] = int(os.environ["WORLD_SIZE"])
    return kept


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_model_states_are_those_of_deepspeed(stage: int) -> None:
    states = ModelStates(*tiny(stage))
    for outcome in run_ranks(WORLD_SIZE, kept_by_deepspeed, stage):
        kept = outcome.returned
        assert kept.pop("world_size") == WORLD_SIZE
        # Partitions are padded, parameter by parameter in ZeRO-3.
        near = {"rel": 0.001}
        weights = states.weights - states.width * states.tower
        assert kept["weights"] == pytest.approx(weights, **near)
        assert kept["gradients"] == pytest.approx(states.gradients, **near)
        optimizer = kept["master weights"] + kept["exp_avg and exp_avg_sq"]
        assert optimizer == pytest.approx(states.optimizer, **near)
        if stage == 3:
            assert kept["bucket"] == states.buffers("forward pass")["ZeRO buckets"]
