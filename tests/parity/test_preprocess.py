"""Recorded preprocessing: which aspect ratios densekit computes."""

import pytest

from densekit.errors import DataError
from densekit.parity.preprocess import recorded_aspect_ratio


def test_aspect_ratio_that_densekit_does_not_compute_is_refused() -> None:
    assert [recorded_aspect_ratio(text) for text in ("square", "pad")] == ["square", "pad"]
    with pytest.raises(DataError, match="image_aspect_ratio anyres_max_9 is not supported yet"):
        recorded_aspect_ratio("anyres_max_9")
