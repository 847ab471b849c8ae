"""TorchGenerator against torch itself."""

import numpy as np
import pytest
import torch

from densekit.batching.rng import DEFAULT_SEED, TorchGenerator
from densekit.errors import UsageError

SEEDS = [0, 1, 42, 1234, 2**31, 2**32 - 1, 2**32 + 7, 2**64 - 1, -1, -(2**63), DEFAULT_SEED]


def _torch(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_default_seed_is_torchs() -> None:
    assert torch.Generator().initial_seed() == DEFAULT_SEED


@pytest.mark.parametrize("seed", SEEDS)
def test_raw_draws_are_those_of_torch(seed: int) -> None:
    # An int32 tensor takes one 32-bit draw per element and keeps 31 bits of it.
    theirs = torch.empty(2000, dtype=torch.int32).random_(generator=_torch(seed))
    ours = TorchGenerator(seed).raw(2000)
    assert ours.dtype == np.uint32
    assert np.array_equal(ours.astype(np.int64) % 2**31, theirs.numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_mixed_calls_keep_the_streams_together(seed: int) -> None:
    ours, theirs = TorchGenerator(seed), _torch(seed)
    for n in (0, 1, 2, 3, 10, 700, 1, 5):
        assert ours.int64() == int(torch.empty((), dtype=torch.int64).random_(generator=theirs))
        assert ours.randperm(n).tolist() == torch.randperm(n, generator=theirs).tolist()


def test_a_full_size_permutation() -> None:
    ours = TorchGenerator(DEFAULT_SEED).randperm(665_298)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, torch.randperm(665_298, generator=torch.Generator()).numpy())


def test_numpys_own_global_state_is_untouched() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    TorchGenerator(3).randperm(10)
    assert np.array_equal(before, np.random.get_state(legacy=False)["state"]["key"])


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_outside_torchs_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="choose a seed"):
        TorchGenerator(seed)


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        TorchGenerator(0).randperm(-1)
