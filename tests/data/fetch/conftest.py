"""What the tests of fetching share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fetch_world import World, fetch_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server, the jobs of a recipe, and where they are put."""
    yield from fetch_world(tmp_path, monkeypatch)
