"""Where the recorded orders lie: a full recorded set when there is one, else the compact set of
this repository.
"""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_golden(golden: Path) -> Path:
    """$DENSEKIT_GOLDEN, a set beside the repository, or tests/golden."""
    beside = Path(__file__).parents[3] / "shared" / "golden"
    folder = Path(os.environ.get("DENSEKIT_GOLDEN", beside))
    return folder if (folder / "sampler" / "sampler.json").is_file() else golden
