"""The batch certificate: what it is a hash of, what changes it, and what it costs at full size."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densekit.batching.certificate import BatchCertificate, CertificateBuilder, step_digest
from densekit.batching.order import OfficialOrder
from densekit.batching.run_order import certify
from densekit.batching.steps import iterate_steps
from densekit.errors import DataError, UsageError
from densekit.spec.math import Reference

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = [5, -3, 8, 2, -9, 4, 1, -1, 6, 7, 3, 12, -2, 9, 10, 4, 11]
IDS = [f"{index}:{index * 2**40:016x}" for index in range(len(LENGTHS))]


def _order(
    seed: int = 42, batch: int = 2, accumulation: int = 1, group: bool = True
) -> OfficialOrder:
    topology = Reference(gpus=2, per_device_batch_size=batch, grad_accum_steps=accumulation)
    lengths = np.array(LENGTHS)
    return OfficialOrder(
        modality_lengths=lengths, topology=topology, seed=seed, group_by_modality=group
    )


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_a_digest_is_the_hash_of_the_ids_line_by_line() -> None:
    assert step_digest(["0:ab", "1:cd"]) == hashlib.sha256(b"0:ab\n1:cd").hexdigest()
    assert step_digest(["é"]) == hashlib.sha256("é".encode()).hexdigest()
    assert step_digest(["0:ab", "1:cd"]) != step_digest(["1:cd", "0:ab"])


@pytest.mark.parametrize("tail", ["faithful", "fixed"])
def test_a_certificate_is_the_hash_of_all_steps(tail: Any) -> None:
    certificate = certify(_order(), IDS, epochs=2, tail=tail)
    steps = list(iterate_steps(_order(), epochs=2, tail=tail))
    digests = [
        _sha256("\n".join(IDS[sample] for sample, _ in step.samples).encode()) for step in steps
    ]
    assert certificate.sha256 == _sha256(b"".join(digests)).hex()
    assert certificate == BatchCertificate(
        num_samples=17,
        steps=10,
        samples_dropped=0,
        samples_repeated=6 if tail == "faithful" else 0,
        sha256=certificate.sha256,
        source="official sampler on 2 x 2 x 1 (GPUs x per-device batch x accumulation), seed 42, "
        f"grouped by modality and length, {tail} tail",
    )


def test_a_trainer_that_adds_what_it_fed_arrives_at_the_same_value() -> None:
    builder = CertificateBuilder()
    for step in iterate_steps(_order(), max_steps=7):
        builder.add(step_digest([IDS[sample] for sample, _ in step.samples]))
    assert builder.sha256 == certify(_order(), IDS, max_steps=7).sha256


def test_whatever_is_fed_otherwise_changes_the_certificate() -> None:
    swapped = [IDS[1], IDS[0], *IDS[2:]]
    found = [
        certify(_order(), IDS, epochs=2),
        certify(_order(), swapped, epochs=2),
        certify(_order(), IDS, epochs=3),
        certify(_order(), IDS, epochs=2, tail="fixed"),
        certify(_order(seed=43), IDS, epochs=2),
        certify(_order(batch=1), IDS, epochs=2),
        certify(_order(group=False), IDS, epochs=2),
    ]
    assert len({certificate.sha256 for certificate in found}) == len(found)
    assert "not grouped" in found[-1].source


def test_json_and_back() -> None:
    certificate = certify(_order(), IDS, epochs=1)
    values = json.loads(json.dumps(certificate.as_json()))
    assert values["schema"] == 1
    assert BatchCertificate.from_json(values) == certificate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2; this version reads 1"),
        ({"steps": "5"}, "not a batch certificate: an object with schema, num_samples, steps"),
        ({"steps": None}, "not a batch certificate"),
        ({"more": 1}, "not a batch certificate"),
    ],
)
def test_other_json_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BatchCertificate.from_json({**certify(_order(), IDS, epochs=1).as_json(), **change})
    with pytest.raises(DataError, match="not a batch certificate"):
        BatchCertificate.from_json([1])


def test_missing_ids_and_malformed_digests_are_refused() -> None:
    with pytest.raises(UsageError, match="16 sample ids for 17 samples"):
        certify(_order(), IDS[1:], epochs=1)
    for digest in ("", "ab", "x" * 64, "ab" * 33):
        with pytest.raises(DataError, match="64 hexadecimal digits"):
            CertificateBuilder().add(digest)


@pytest.mark.ranks
def test_the_full_size_needs_no_torch_and_little_memory() -> None:
    program = (
        "import runpy, sys\n"
        "runpy.run_path('benchmarks/certificate.py', run_name='__main__')\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert (measured["samples"], measured["certificate"]["steps"]) == (665_298, 5198)
    assert measured["peak_bytes"] < 1e9
    assert measured["seconds"] < 60
