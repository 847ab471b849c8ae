"""How a video is asked about: some frames, each an image, their tokens pooled (FreeVA, arXiv
2405.07798; the official video scripts of Dense Connector).
"""

from pydantic import Field

from densekit.spec.part import Part, PositiveInt

FRAMES = 8
"""Of the official video scripts of Dense Connector; FreeVA's own take 4."""
MAX_FRAMES = 256
POOL = 2
"""Neighbouring tokens of which the largest values are taken, in the order of the sequence."""


class VideoSettings(Part):
    """Which frames are looked at, and what becomes of their tokens."""

    frames: PositiveInt = Field(default=FRAMES, le=MAX_FRAMES)
    """As many as the video has, at most so many."""
    pooled: bool = True
    """The largest of every two neighbouring tokens of a frame; an odd last one is dropped."""

    def tokens(self, frames: int, of_frame: int) -> int:
        """Tokens of a video of which so many frames of `of_frame` tokens each are seen."""
        return frames * (of_frame // POOL if self.pooled else of_frame)


def frame_indices(total: int, wanted: int) -> list[int]:
    """The frames of a video of `total` that stand for it: the middle of as many equal segments as
    are wanted, halves rounded to even.
    """
    assert total > 0 and wanted > 0, (total, wanted)
    count = min(total, wanted)
    segment = (total - 1) / count
    return [
        (round(number * segment) + round((number + 1) * segment)) // 2 for number in range(count)
    ]
