"""Where tests find what they read: this repository, and the numbers recorded from the official
code.
"""

import os
from pathlib import Path

from tests.support.needs import needs

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
"""The compact recorded set: part of the repository, without the licensed tokenizers."""
RECORDED = Path(os.environ.get("DENSEKIT_GOLDEN") or ROOT.parent / "shared" / "golden")
"""The full one; with the scorers beside it, the only thing that tests may read outside the
repository.
"""

SCORERS = ROOT / "tests" / "golden_eval"
"""Outputs of the official scorers and prompts, short cases."""
RECORDED_SCORERS = RECORDED.parent / "golden_eval"
"""All of them, beside the full set."""


def full_recording() -> Path:
    """RECORDED; where it is not, the test is skipped (need `recorded`)."""
    if not RECORDED.is_dir():
        needs("recorded", f"{RECORDED} does not exist; DENSEKIT_GOLDEN names the recorded set")
    return RECORDED


GOLDEN_EXCHANGE = ROOT / "tests" / "golden_exchange"
GOLDEN_VARIANTS = ROOT / "tests" / "golden_variants"
"""Official checkpoint folders of a tiny model: some of the recorded ones."""
RECORDED_EXCHANGE = RECORDED.with_name("golden_exchange")
"""All of them."""


def full_scorers() -> Path:
    """RECORDED_SCORERS; where they are not, the test is skipped (need `recorded`)."""
    if not RECORDED_SCORERS.is_dir():
        needs("recorded", f"{RECORDED_SCORERS} does not exist; it lies beside DENSEKIT_GOLDEN")
    return RECORDED_SCORERS
