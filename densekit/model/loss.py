"""The loss: a weighted sum over label positions, so that micro-batches and ranks add up."""

from torch import Tensor
from torch.nn import functional as F


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum_k weights[k] * -log softmax(logits[k])[targets[k]], in fp32 (docs/architecture.md, "Why
    sums").

    logits [K, V], targets [K] ids, weights [K]; K may be 0. Returns a 0-dim tensor.
    """
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()
