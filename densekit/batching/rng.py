"""Torch's CPU random generator, bit for bit, without torch.

The official sample order is a function of torch's Mersenne Twister. Source of the equivalence:
docs/upstream.md, U10; tests/batching/test_rng.py compares every method with torch itself.
"""

import numpy as np
import numpy.typing as npt

from densekit.errors import UsageError

# What `torch.Generator()` is seeded with when nobody seeds it (c10's default_rng_seed_val).
DEFAULT_SEED = 67280421310721

Indices = npt.NDArray[np.int64]


class TorchGenerator:
    """The stream of `torch.Generator().manual_seed(seed)` on the CPU; methods advance it as torch
    does.
    """

    def __init__(self, seed: int) -> None:
        """Start the stream at `seed`, torch's range -2**63 .. 2**64 - 1; raises UsageError outside
        it.
        """
        if not -(2**63) <= seed < 2**64:
            raise UsageError(
                f"seed {seed}: torch accepts -2**63 to 2**64 - 1; choose a seed in that range"
            )
        # torch seeds its engine with the low 32 bits only. MT19937(seed) would hash the seed;
        # seeding through RandomState runs the original init_genrand on the same bit generator,
        # which is what torch does.
        self._bits = np.random.MT19937()
        np.random.RandomState(self._bits).seed(seed & 0xFFFFFFFF)

    def raw(self, n: int) -> npt.NDArray[np.uint32]:
        """Return the next `n` 32-bit draws, shape (n,)."""
        return self._bits.random_raw(n).astype(np.uint32)

    def int64(self) -> int:
        """Return `torch.empty((), dtype=torch.int64).random_()`: two draws, high word first, 63
        bits kept.
        """
        high, low = self.raw(2).tolist()
        return int((high << 32 | low) & (2**63 - 1))

    def randperm(self, n: int) -> Indices:
        """Return `torch.randperm(n)`, shape (n,): a forward Fisher-Yates shuffle of max(n - 1, 0)
        draws.

        Raises UsageError for a negative n.
        """
        if n < 0:
            raise UsageError(f"randperm({n}): the number of samples cannot be negative")
        if n < 2:
            return np.arange(n, dtype=np.int64)
        steps = np.arange(n - 1, dtype=np.int64)
        targets = (steps + self.raw(n - 1).astype(np.int64) % (n - steps)).tolist()
        # A plain list: each swap depends on the one before, and numpy is slow to index one by one.
        order = list(range(n))
        for position, target in enumerate(targets):
            order[position], order[target] = order[target], order[position]
        return np.array(order, dtype=np.int64)
