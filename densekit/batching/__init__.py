"""Which samples each optimizer step consumes, how they are split, and what each token weighs."""

from densekit.batching.certificate import BatchCertificate, CertificateBuilder, certify, step_digest
from densekit.batching.counts import StepCounts, count_steps, official_step_counts
from densekit.batching.order import (
    OfficialOrder,
    length_grouped_indices,
    modality_grouped_indices,
    split_to_even_chunks,
)
from densekit.batching.rng import DEFAULT_SEED, TorchGenerator
from densekit.batching.split import split_step
from densekit.batching.steps import Step, iterate_steps
from densekit.batching.weights import TokenWeights, token_weights
from densekit.spec.types import Semantics

__all__ = [
    "DEFAULT_SEED",
    "BatchCertificate",
    "CertificateBuilder",
    "OfficialOrder",
    "Semantics",
    "Step",
    "StepCounts",
    "TokenWeights",
    "TorchGenerator",
    "certify",
    "count_steps",
    "iterate_steps",
    "length_grouped_indices",
    "modality_grouped_indices",
    "official_step_counts",
    "split_step",
    "split_to_even_chunks",
    "step_digest",
    "token_weights",
]
