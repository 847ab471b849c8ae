"""How evenly a step's tokens lie on the ranks: dealt by length (what densekit does) against
consecutive blocks.

The figure is the largest over the mean number of tokens of a rank, averaged over steps: with ZeRO
every rank waits for the slowest. Samples are those of benchmarks/certificate.py (synthetic, a long
tail); a sample with an image has 576 tokens more than words. Nothing is timed.
"""

import json
from itertools import islice
from statistics import fmean

import numpy as np
from certificate import synthetic_index

from densekit.batching.order import OfficialOrder
from densekit.batching.split import split_step
from densekit.batching.steps import iterate_steps
from densekit.spec.math import Reference

STEPS = 500
IMAGE_TOKENS = 576


def imbalance(parts: list[list[int]]) -> float:
    """Largest over mean total."""
    totals = [sum(part) for part in parts]
    return max(totals) / fmean(totals)


def measure(lengths: np.ndarray, *, per_device: int, grouped: bool, ranks: int) -> dict[str, float]:
    """Mean imbalance of the first STEPS steps on `ranks` ranks, for both ways."""
    order = OfficialOrder(
        modality_lengths=lengths,
        topology=Reference(gpus=8, per_device_batch_size=per_device, grad_accum_steps=1),
        seed=42,
        group_by_modality=grouped,
    )
    dealt, blocks = [], []
    for step in islice(iterate_steps(order, epochs=1), STEPS):
        tokens = [
            abs(words) + IMAGE_TOKENS * (words > 0)
            for words in lengths[np.concatenate(step.groups)].tolist()
        ]
        split = split_step(tokens, world_size=ranks, micro_batch_size=len(tokens))
        dealt.append(imbalance([[tokens[p] for micro in rank for p in micro] for rank in split]))
        blocks.append(
            imbalance([block.tolist() for block in np.array_split(np.array(tokens), ranks)])
        )
    return {"dealt": round(fmean(dealt), 3), "blocks": round(fmean(blocks), 3)}


def main() -> None:
    """Print both figures per stage and number of ranks as JSON."""
    lengths = synthetic_index().modality_lengths
    stages = {
        "stage 1": {"per_device": 32, "grouped": False},
        "stage 2": {"per_device": 16, "grouped": True},
    }
    found = {
        f"{name}, {ranks} ranks": measure(lengths, **settings, ranks=ranks)  # type: ignore[arg-type]
        for name, settings in stages.items()
        for ranks in (4, 8, 16)
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
