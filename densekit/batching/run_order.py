"""What one run feeds: the official order of its samples, its steps and its certificate."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from densekit.batching.certificate import BatchCertificate, CertificateBuilder, step_digest
from densekit.batching.counts import count_steps
from densekit.batching.order import OfficialOrder
from densekit.batching.run_length import RunLength
from densekit.batching.steps import Step, iterate_steps
from densekit.errors import UsageError
from densekit.spec.math import Math
from densekit.spec.types import Semantics


def certify(
    order: OfficialOrder,
    sample_ids: Sequence[str],
    *,
    epochs: float | None = None,
    max_steps: int | None = None,
    tail: Semantics = "faithful",
) -> BatchCertificate:
    """Return the certificate of the run that feeds `order`; length and tail as `iterate_steps`, and
    its errors.

    `sample_ids[i]` is the id of sample i (`index:16 hex digits`); raises UsageError unless there is
    one per sample.
    """
    if len(sample_ids) != order.num_samples:
        raise UsageError(
            f"{len(sample_ids)} sample ids for {order.num_samples} samples; give one id per sample"
        )
    counts = count_steps(
        order.num_samples, topology=order.topology, epochs=epochs, max_steps=max_steps, tail=tail
    )
    builder = CertificateBuilder()
    for step in iterate_steps(order, epochs=epochs, max_steps=max_steps, tail=tail):
        builder.add(
            step_digest([sample_ids[sample] for group in step.groups for sample in group.tolist()])
        )
    return BatchCertificate(
        num_samples=order.num_samples,
        steps=counts.steps,
        samples_dropped=counts.samples_dropped,
        samples_repeated=counts.samples_repeated,
        sha256=builder.sha256,
        source=_source(order, tail),
    )


def _source(order: OfficialOrder, tail: Semantics) -> str:
    topology = order.topology
    grouping = "grouped by modality and length" if order.group_by_modality else "not grouped"
    return (
        f"official sampler on {topology.gpus} x {topology.per_device_batch_size} x "
        f"{topology.grad_accum_steps} "
        f"(GPUs x per-device batch x accumulation), seed {order.seed}, {grouping}, {tail} tail"
    )


class RunOrder:
    """The order of one run over one annotation file."""

    def __init__(self, math: Math, modality_lengths: npt.NDArray[np.int64]) -> None:
        """`modality_lengths`, shape (samples,): words per sample, negative for text-only ones."""
        self.length = RunLength.of(math)
        self._order = OfficialOrder(
            modality_lengths=modality_lengths,
            topology=math.reference,
            seed=math.seed,
            group_by_modality=math.data.group_by_modality_length,
        )

    def steps(self) -> list[Step]:
        """Every optimizer step."""
        length = self.length
        return list(
            iterate_steps(
                self._order, epochs=length.epochs, max_steps=length.max_steps, tail=length.tail
            )
        )

    def certificate(self, sample_ids: Sequence[str]) -> BatchCertificate:
        """The certificate of what the steps feed; `sample_ids[i]` is the id of sample i."""
        length = self.length
        return certify(
            self._order,
            sample_ids,
            epochs=length.epochs,
            max_steps=length.max_steps,
            tail=length.tail,
        )
