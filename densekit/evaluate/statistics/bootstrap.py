"""The cluster bootstrap: images are drawn with replacement, the same ones for every run, so that
what runs have in common cancels in their difference.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from densekit.errors import DataError
from densekit.evaluate.statistics.figures import Floats, Table

REPLICATES = 2000
"""Resamplings: a standard error to about 1.6 %."""
CHUNK_CELLS = 1 << 22
"""Weights that are held at a time (32 MiB)."""


def named_generator(name: str) -> np.random.Generator:
    """The random numbers of one named use."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def replicates(tables: Sequence[Table], *, name: str, count: int = REPLICATES) -> Floats:
    """Each run's figure in each resampling of the images, (count, runs). `name` seeds the draws.

    Raises DataError for runs that were asked about other images, and where a stratum has fewer than
    two: nothing can be drawn then.
    """
    first = tables[0]
    if any(table.clusters != first.clusters for table in tables):
        raise DataError("the runs were asked about other images; evaluate both on the same data")
    if np.bincount(first.strata).min() < 2:
        raise DataError(
            "an interval needs at least 2 images (in each category, where the figure sums over "
            "categories); evaluate more of the benchmark"
        )
    runs, width = len(tables), first.sums_CK.shape[1]
    stacked = np.concatenate([table.sums_CK for table in tables], axis=1)
    found = []
    for weights in _weights(first, named_generator(f"bootstrap:{name}"), count):
        sums = (weights @ stacked).reshape(-1, runs, width)
        found.append(first.figure(sums))
    return np.concatenate(found)


def _weights(table: Table, generator: np.random.Generator, count: int) -> Iterator[Floats]:
    """How often each cluster is drawn, a chunk of resamplings at a time: (chunk, C)."""
    clusters = len(table.clusters)
    members = [np.flatnonzero(table.strata == stratum) for stratum in np.unique(table.strata)]
    step = max(1, CHUNK_CELLS // clusters)
    for start in range(0, count, step):
        rows = min(step, count - start)
        weights = np.zeros((rows, clusters))
        for places in members:
            size = len(places)
            drawn = generator.integers(size, size=(rows, size))
            drawn += np.arange(rows, dtype=np.int64)[:, None] * size
            weights[:, places] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(
                rows, size
            )
        yield weights


def standard_error(values: Floats, table: Table) -> float:
    """The standard error that replicates (count,) show. A resampling of n draws spreads like n - 1
    of them, which is made up for within each stratum on average.
    """
    clusters = len(table.clusters)
    strata = len(np.unique(table.strata))
    return float(np.std(values, ddof=1) * np.sqrt(clusters / (clusters - strata)))
