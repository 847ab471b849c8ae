"""The batch certificate: one hash over what a run feeds, step after step, and where that order
comes from.

A step's digest is the SHA-256 of its ordered sample ids, one a line; the certificate's is the
SHA-256 of the raw digests of all steps. The trainer adds up the digests of what it really fed and
must arrive at the same value.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from densekit.batching.counts import count_steps
from densekit.batching.order import OfficialOrder
from densekit.batching.steps import iterate_steps
from densekit.errors import DataError, UsageError
from densekit.spec.types import Semantics

SCHEMA = 1


def step_digest(items: Sequence[str]) -> str:
    """Return the SHA-256 (64 hex digits) of `items`, joined by newlines, in UTF-8."""
    return hashlib.sha256("\n".join(items).encode()).hexdigest()


class CertificateBuilder:
    """Adds up step digests, whoever made them: from an order (`certify`) or from what a trainer
    fed.
    """

    def __init__(self) -> None:
        """Begin before the first step."""
        self._hash = hashlib.sha256()

    def add(self, step_digest_hex: str) -> None:
        """Add the next step by its digest, as `step_digest` gives it; raises DataError for anything
        else.
        """
        try:
            digest = bytes.fromhex(step_digest_hex)
        except ValueError:
            digest = b""
        if len(digest) != self._hash.digest_size:
            raise DataError(f"step digest {step_digest_hex!r}: a SHA-256 has 64 hexadecimal digits")
        self._hash.update(digest)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) over the steps added so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, kw_only=True)
class BatchCertificate:
    """What a run feeds, exactly."""

    schema: int = SCHEMA
    num_samples: int
    """Entries of the annotation file."""
    steps: int
    """Optimizer steps of the whole run."""
    samples_dropped: int
    samples_repeated: int
    sha256: str
    """SHA-256 over the concatenated raw 32-byte digests of every step's sample ids, in official
    order.
    """
    source: str
    """Where the order comes from, in words."""

    def as_json(self) -> dict[str, Any]:
        """Plain values under the fields' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "BatchCertificate":
        """Inverse of as_json. Raises DataError for anything else, and for another schema."""
        types = {field.name: field.type for field in fields(cls)}
        if (
            not isinstance(values, Mapping)
            or {name: type(value) for name, value in values.items()} != types
        ):
            raise DataError(f"not a batch certificate: an object with {', '.join(types)} is needed")
        if values["schema"] != SCHEMA:
            raise DataError(
                f"a batch certificate of schema {values['schema']}; this version reads {SCHEMA}"
            )
        return cls(**values)


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
