"""Which samples each optimiser step consumes, how they are shared out, and what each token weighs."""

from densekit.batching.micro import split_step
from densekit.batching.order import (
    OfficialOrder,
    ReferenceTopology,
    length_grouped_indices,
    modality_grouped_indices,
    split_to_even_chunks,
)
from densekit.batching.rng import DEFAULT_SEED, TorchGenerator
from densekit.batching.steps import Step, StepCounts, count_steps, iterate_steps
from densekit.batching.weights import TokenWeights, token_weights

__all__ = [
    "DEFAULT_SEED",
    "OfficialOrder",
    "ReferenceTopology",
    "Step",
    "StepCounts",
    "TokenWeights",
    "TorchGenerator",
    "count_steps",
    "iterate_steps",
    "length_grouped_indices",
    "modality_grouped_indices",
    "split_step",
    "split_to_even_chunks",
    "token_weights",
]
