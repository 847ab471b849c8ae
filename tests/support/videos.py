"""Videos made by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = 32


def make_video(path: Path, frames: int) -> Path:
    """A video whose frame n is grey of brightness 5 + n, without loss."""
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width = stream.height = SIZE
        stream.pix_fmt = "bgr0"
        for number in range(frames):
            pixels = np.full((SIZE, SIZE, 3), 5 + number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
