"""Where the recorded numbers lie: outside the repository, so tests that need them skip on a fresh clone."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The directory of recorded official runs: $DENSEKIT_GOLDEN, or ../shared/golden beside the repo."""
    default = Path(__file__).parents[3] / "shared" / "golden"
    folder = Path(os.environ.get("DENSEKIT_GOLDEN", default))
    if not (folder / "sampler" / "sampler.json").is_file():
        pytest.skip(f"recorded sampler cases are missing: no {folder}/sampler/sampler.json (set DENSEKIT_GOLDEN)")
    return folder
