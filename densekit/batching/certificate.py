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

from densekit.errors import DataError

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
