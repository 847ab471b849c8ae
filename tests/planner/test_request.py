"""What `densekit plan` fills in of a request: the GPUs of the command line, else the paper's."""

import pytest

from densekit.errors import UsageError
from densekit.planner.cluster import usual_nodes
from densekit.planner.request import with_hardware
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import BY_NAME

PAPER = load_recipe("llama3_70b_stage2_lora")


@pytest.mark.parametrize(
    ("gpus", "nodes"), [(0, 1), (1, 1), (8, 1), (9, 3), (11, 11), (12, 2), (16, 2), (32, 4)]
)
def test_usual_nodes_are_the_fewest_even_ones(gpus: int, nodes: int) -> None:
    assert usual_nodes(BY_NAME["a100-80g"], gpus) == nodes


@pytest.mark.parametrize(
    ("asked", "gpu", "world_size", "nodes"),
    [
        ({}, "a100-80g", 32, 4),
        ({"world_size": 12}, "a100-80g", 12, 2),
        ({"gpu": "v100-32g", "nodes": 8}, "v100-32g", 32, 8),
    ],
)
def test_open_hardware_is_the_papers(
    asked: dict[str, int | str], gpu: str, world_size: int, nodes: int
) -> None:
    filled, row = with_hardware(PAPER, ExecutionRequest.model_validate(asked))
    assert row is BY_NAME[gpu]
    assert (filled.device, filled.world_size, filled.nodes) == ("cuda", world_size, nodes)


def test_cpu_requests_are_one_process() -> None:
    tiny = load_recipe("tiny_stage1")
    for recipe, request in (
        (tiny, ExecutionRequest()),
        (PAPER, ExecutionRequest(device="cpu")),
        (PAPER, ExecutionRequest(gpu="cpu")),
    ):
        filled, row = with_hardware(recipe, request)
        assert (filled.device, filled.world_size, filled.nodes, row) == ("cpu", 1, 1, None)
    with pytest.raises(UsageError, match="--gpu h200 --device cpu: give one of the two"):
        with_hardware(PAPER, ExecutionRequest(gpu="h200", device="cpu"))


def test_gpu_that_nobody_named_stays_unknown() -> None:
    recipe = load_recipe("tiny_stage1", ["hardware=null"])
    filled, row = with_hardware(recipe, ExecutionRequest(device="cuda"))
    assert (filled.device, filled.world_size, row) == ("cuda", recipe.reference.gpus, None)
