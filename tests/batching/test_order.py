"""The sample order: recorded official cases, hand-worked ones, and the rules both rest on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.batching.order import (
    OfficialOrder,
    length_grouped_indices,
    modality_grouped_indices,
    split_to_even_chunks,
)
from densekit.batching.rng import DEFAULT_SEED, TorchGenerator
from densekit.batching.steps import iterate_steps
from densekit.errors import DataError, UsageError
from densekit.spec.math import Reference

LENGTHS = st.lists(st.integers(-30, 30).filter(bool), min_size=1, max_size=80)


def _topology(world: int = 1, batch: int = 2, accumulation: int = 1) -> Reference:
    return Reference(gpus=world, per_device_batch_size=batch, grad_accum_steps=accumulation)


def _order(
    lengths: list[int], topology: Reference, seed: int = 42, group: bool = True
) -> OfficialOrder:
    return OfficialOrder(
        modality_lengths=np.array(lengths), topology=topology, seed=seed, group_by_modality=group
    )


def _sampler_order(case: dict[str, Any]) -> list[int]:
    shared = TorchGenerator(case["seed"])
    own = None if case["generator_seed"] is None else TorchGenerator(case["generator_seed"])
    lengths, batch, world = case["lengths"], case["batch_size"], case["world_size"]
    if case["group_by_modality"]:
        return modality_grouped_indices(
            lengths, batch, world, global_generator=shared, generator=own
        )
    return length_grouped_indices(lengths, batch, world, generator=own or shared)


def test_every_recorded_sampler_case(any_recorded: Path) -> None:
    cases = json.loads((any_recorded / "sampler/sampler.json").read_text())["cases"]
    assert cases
    assert [case["name"] for case in cases if _sampler_order(case) != case["order"]] == []


def test_every_recorded_chunk_split(any_recorded: Path) -> None:
    cases = json.loads((any_recorded / "sampler/sampler.json").read_text())["split_to_even_chunks"]
    assert cases
    for case in cases:
        assert (
            split_to_even_chunks(case["indices"], case["lengths"], case["num_chunks"])
            == case["chunks"]
        )


@pytest.mark.parametrize("stage", [1, 2])
def test_every_recorded_run_over_all_its_epochs(any_recorded: Path, stage: int) -> None:
    entries = json.loads((any_recorded / f"data/stage{stage}_train.json").read_text())
    lengths = []
    for entry in entries:
        words = sum(len(turn["value"].split()) for turn in entry["conversations"])
        lengths.append(words if "image" in entry else -words)
    runs = sorted(any_recorded.glob(f"*/stage{stage}.json"))
    assert runs
    for run in runs:
        recorded = json.loads(run.read_text())
        argv = dict(zip(recorded["argv"][::2], recorded["argv"][1::2], strict=True))
        topology = _topology(
            batch=int(argv["--per_device_train_batch_size"]),
            accumulation=int(argv["--gradient_accumulation_steps"]),
        )
        order = _order(lengths, topology, group=argv.get("--group_by_modality_length") == "True")
        fed = [
            [entries[index]["id"] for group in step.groups for index in group]
            for step in iterate_steps(order, max_steps=len(recorded["steps"]))
        ]
        assert fed == [step["ids"] for step in recorded["steps"]], run


def test_one_recorded_case_without_the_recorded_set() -> None:
    lengths = [
        135,
        -161,
        9,
        162,
        96,
        105,
        127,
        60,
        196,
        -15,
        59,
        -79,
        116,
        -84,
        30,
        13,
        -5,
        14,
        34,
        -199,
    ]
    order = modality_grouped_indices(lengths, 2, 1, global_generator=TorchGenerator(42))
    assert order == [19, 9, 0, 6, 5, 17, 3, 7, 4, 2, 12, 10, 8, 14, 1, 11, 13, 15, 16, 18]


def test_chunks_fill_by_length_when_even_and_in_turn_when_not() -> None:
    assert split_to_even_chunks([0, 1, 2, 3], [9, 5, 4, 1], 2) == [[0, 3], [1, 2]]
    assert split_to_even_chunks([0, 1, 2], [9, 5, 4], 2) == [[0, 2], [1]]


@given(lengths=LENGTHS, batch=st.integers(1, 5), world=st.integers(1, 4), seed=st.integers(0, 99))
def test_modality_grouping_is_a_permutation_with_pure_megabatches(
    lengths: list[int], batch: int, world: int, seed: int
) -> None:
    order = modality_grouped_indices(lengths, batch, world, global_generator=TorchGenerator(seed))
    assert sorted(order) == list(range(len(lengths)))
    size = batch * world
    images = sum(length > 0 for length in lengths)
    if 0 < images < len(lengths):
        pure = [(count - 1) // size for count in (images, len(lengths) - images)]
        for start in range(0, sum(pure) * size, size):
            assert len({lengths[index] > 0 for index in order[start : start + size]}) == 1
        rest = order[sum(pure) * size :]
        assert rest == sorted(rest)


def test_a_zero_length_is_refused_and_named() -> None:
    with pytest.raises(DataError, match="sample 1 has length 0"):
        modality_grouped_indices([3, 0, -1], 1, 1, global_generator=TorchGenerator(0))


def test_samples_of_one_word_keep_their_modality() -> None:
    order = modality_grouped_indices(
        [1, 1, 1, -1, -1, -1], 1, 1, global_generator=TorchGenerator(0)
    )
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert order[4] < 3 <= order[5]  # the last image and the last text are set aside, in order


def test_one_process_without_grouping_is_torchs_random_sampler() -> None:
    torch.manual_seed(7)
    sampler = torch.utils.data.RandomSampler(range(37))
    loader: torch.utils.data.DataLoader[int] = torch.utils.data.DataLoader(
        range(37),  # type: ignore[arg-type]
        batch_size=2,
        sampler=sampler,
    )
    order = _order([1] * 37, _topology(), seed=7, group=False)
    for epoch in range(3):
        assert order.epoch(epoch).tolist() == [int(index) for batch in loader for index in batch]


def test_several_processes_ignore_the_seed_in_stage_1() -> None:
    orders = [_order([1] * 50, _topology(world=8), seed=seed, group=False) for seed in (1, 2)]
    generator = torch.Generator()
    for epoch in range(2):
        expected = torch.randperm(50, generator=generator).tolist()
        assert [order.epoch(epoch).tolist() for order in orders] == [expected, expected]


def test_several_processes_in_stage_2_use_both_generators_epoch_after_epoch() -> None:
    lengths = [index + 1 if index % 3 else -index - 1 for index in range(60)]
    order = _order(lengths, _topology(world=2, batch=2, accumulation=2))
    shared, own = TorchGenerator(42), TorchGenerator(DEFAULT_SEED)
    for epoch in range(3):
        shared.int64()
        expected = modality_grouped_indices(lengths, 2, 4, global_generator=shared, generator=own)
        assert order.epoch(epoch).tolist() == expected


@settings(max_examples=30)
@given(
    asked=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    world=st.sampled_from([1, 2]),
    group=st.booleans(),
)
def test_epochs_can_be_asked_for_in_any_order(asked: list[int], world: int, group: bool) -> None:
    lengths = [5, -3, 8, 2, -9, 4, 1, -1, 6, 7, 3]
    once = _order(lengths, _topology(world=world), group=group)
    for epoch in asked:
        fresh = _order(lengths, _topology(world=world), group=group)
        expected = [fresh.epoch(k).tolist() for k in range(epoch + 1)][-1]
        assert once.epoch(epoch).tolist() == expected


def test_an_epoch_asked_for_again_is_not_drawn_again() -> None:
    order = _order([1, 2, 3], _topology())
    assert order.epoch(1) is order.epoch(1)


def test_an_order_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        _order([1, 2, 3], _topology()).epoch(0)[0] = 9


def test_missing_lengths_and_negative_epochs_are_refused() -> None:
    with pytest.raises(DataError, match="one length per sample"):
        _order([], _topology())
    with pytest.raises(UsageError, match="counted from 0"):
        _order([1], _topology()).epoch(-1)
