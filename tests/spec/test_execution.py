"""Execution and ExecutionRequest: JSON there and back, old schemas, messages, words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from densekit.errors import DataError, UsageError
from densekit.spec.execution import SCHEMA, Execution, ExecutionRequest, SavePolicy
from densekit.spec.roots import Roots

EXECUTIONS = st.builds(
    Execution,
    device=st.sampled_from(["cpu", "cuda"]),
    gpu=st.none() | st.just("a100-80g"),
    world_size=st.sampled_from([4, 8]),
    nodes=st.sampled_from([1, 2]),
    micro_batch_size=st.integers(1, 64),
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
    attention=st.sampled_from(["sdpa", "flash", "xformers"]),
    zero_stage=st.sampled_from([0, 2, 3]),
    activation_checkpointing=st.booleans(),
    cpu_offload=st.booleans(),
    workers=st.integers(0, 8),
    threads=st.integers(1, 8),
    deterministic=st.booleans(),
    certificate_sha256=st.none() | st.just("ab" * 32),
    checkpoints=st.builds(SavePolicy, every_steps=st.none() | st.integers(1, 100)),
    starts_from=st.none() | st.just("runs/stage1"),
)


@given(EXECUTIONS)
def test_execution_round_trips_through_json(execution: Execution) -> None:
    values = execution.as_json()
    assert values["schema"] == SCHEMA
    again = Execution.from_json(values, source="execution.json")
    assert again == execution.model_copy(update={"roots": execution.roots.absolute()})
    assert again.as_json() == values


def test_schema_1_is_read_under_the_new_names() -> None:
    old = {
        "device": "cuda",
        "gpus": 8,
        "nodes": 2,
        "micro_batch_size": 4,
        "micro_batches": [[4, 4]] * 8,
        "dtype": "bf16",
        "attention": "flash",
        "zero_stage": 3,
        "checkpointing": True,
        "offload": True,
        "roots": {"data": "/d", "models": "/m", "cache": "/c"},
    }
    execution = Execution.from_json(old, source="execution.json")
    assert (execution.world_size, execution.nodes, execution.micro_batch_size) == (8, 2, 4)
    assert execution.activation_checkpointing and execution.cpu_offload
    assert execution.as_json()["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "run/execution.json must hold a JSON object"),
        ({"schema": 9}, "run/execution.json has schema 9; this version reads 1 and 2"),
        ({"schema": 2, "gpus": 1}, "run/execution.json: gpus: Extra inputs are not permitted"),
        ({"schema": 2, "dtype": "int8"}, "run/execution.json: dtype: Input should be 'fp32'"),
        ({"world_size": 0, "schema": 2}, "run/execution.json: world_size: .*greater than 0"),
        (
            {"schema": 2, "world_size": 3, "nodes": 2},
            "world_size 3 on 2 nodes: every node must run",
        ),
        ({"schema": 2, "checkpoints": {"keep": 0}}, "run/execution.json: checkpoints.keep: "),
    ],
)
def test_wrong_execution_json_is_named_by_file_and_field(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Execution.from_json(values, source="run/execution.json")


def test_execution_is_frozen_and_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Execution().dtype = "bf16"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Execution.model_validate({"checkpointing": True})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "on 1 CPU process (no sharding, fp32, sdpa attention)"),
        ({"world_size": 2}, "on 2 CPU processes (DDP, fp32, sdpa attention)"),
        (
            {
                "device": "cuda",
                "world_size": 16,
                "nodes": 2,
                "zero_stage": 3,
                "activation_checkpointing": True,
                "cpu_offload": True,
                "dtype": "bf16",
                "attention": "flash",
            },
            "on 16 CUDA processes of 2 nodes (ZeRO-3, activation checkpointing, CPU offload, bf16, "
            "flash attention)",
        ),
    ],
)
def test_describe_says_how_it_runs(values: dict[str, Any], words: str) -> None:
    execution = Execution.model_validate(values)
    assert execution.describe() == words
    assert ", ".join(execution.settings()) in words
    assert execution.settings()[: len(execution.engine())] == execution.engine()


def test_processes_per_node_and_process_groups() -> None:
    two_nodes = Execution(world_size=8, nodes=2)
    assert two_nodes.per_node == 4 and two_nodes.is_distributed
    assert not Execution().is_distributed
    assert Execution(zero_stage=2).is_distributed, "ZeRO needs a process group on one rank too"


def test_roots_are_written_as_absolute_paths() -> None:
    relative = Execution(roots=Roots())
    assert all(path.startswith("/") for path in relative.as_json()["roots"].values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"micro_batch_size": 0}, "--micro-batch 0: give a number of at least 1"),
        ({"workers": -1}, "--workers -1: give a number of at least 0"),
        ({"save_steps": 0}, "--save-steps 0: give a number of at least 1"),
        ({"save_minutes": -0.5}, "--save-minutes -0.5: give a number of at least 0"),
        ({"save_minutes": 1e999}, "--save-minutes inf: give a number of at most 1000000"),
        ({"workers": 10**9}, "--workers 1000000000: give a number of at most 256"),
        ({"keep": 0}, "--keep 0: give a number of at least 1"),
        ({"keep_hours": -1}, "--keep-hours -1.0: give a number of at least 0"),
    ],
)
def test_impossible_requests_are_refused_by_option(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        ExecutionRequest.model_validate(values).check()


def test_request_decides_when_checkpoints_are_saved() -> None:
    assert ExecutionRequest().save_policy() == SavePolicy()
    asked = ExecutionRequest(save_steps=5, save_minutes=0, keep=3, keep_hours=1)
    assert asked.save_policy() == SavePolicy(
        every_steps=5, every_minutes=None, keep=3, keep_hours=1
    )
    ExecutionRequest().check()


def test_every_requested_knob_is_one_of_the_execution() -> None:
    saving = {"save_steps", "save_minutes", "keep", "keep_hours"}
    assert set(ExecutionRequest.model_fields) - saving <= set(Execution.model_fields)
