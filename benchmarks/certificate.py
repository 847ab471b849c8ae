"""Times the batch certificate of stage 2 at full size: 665,298 samples with synthetic lengths and
digests.

From lengths and digests (what the sample index holds) to the certificate, in one process and
without torch. Memory is the highest resident size of the process (VmHWM): getrusage would also
count what the process that started this one held at that moment.
"""

import json
import re
import time
from pathlib import Path

import numpy as np

from densekit.batching.order import OfficialOrder
from densekit.batching.run_order import certify
from densekit.data.index import SampleIndex
from densekit.spec.math import Reference

SAMPLES = 665_298
TEXT_ONLY = 40_688


def synthetic_index() -> SampleIndex:
    """As many samples as LLaVA-1.5's second stage, as many of them without an image; words with a
    long tail.
    """
    generator = np.random.default_rng(0)
    words = generator.lognormal(4.6, 0.9, SAMPLES).astype(np.int64) + 1
    words[generator.permutation(SAMPLES)[:TEXT_ONLY]] *= -1
    digests = generator.integers(2**64, size=SAMPLES, dtype=np.uint64)
    return SampleIndex(annotations_sha256="synthetic", modality_lengths=words, digests=digests)


def peak_bytes() -> int:
    """The highest resident size of this process so far."""
    found = re.search(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
    )
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Print seconds, peak memory and the certificate as JSON."""
    index = synthetic_index()
    begun = time.perf_counter()
    order = OfficialOrder(
        modality_lengths=index.modality_lengths,
        topology=Reference(gpus=8, per_device_batch_size=16, grad_accum_steps=1),
        seed=42,
        group_by_modality=True,
    )
    certificate = certify(order, index.sample_ids(), epochs=1)
    seconds = time.perf_counter() - begun
    measured = {"samples": SAMPLES, "seconds": round(seconds, 2), "peak_bytes": peak_bytes()}
    print(json.dumps({**measured, "certificate": certificate.as_json()}, indent=1))


if __name__ == "__main__":
    main()
