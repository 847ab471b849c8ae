"""Frames of a video file, decoded by PyAV (the extra `video`)."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

from densekit.errors import DataError, UsageError
from densekit.spec.video import VideoSettings, frame_indices

INSTALL = (
    "pip install 'densekit[video]', or use the container image of docker/Dockerfile's target video"
)
REMEDY = "put a whole copy of the video there"
MAX_FRAMES_READ = 1_000_000
"""Frames of a video: over nine hours at 30 a second."""


def require_decoder() -> Any:
    """PyAV. Raises UsageError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"a video is decoded by PyAV, which is not here ({error}): {INSTALL}"
        ) from None
    return av


def read_frames(path: Path, settings: VideoSettings) -> list[Image.Image]:
    """The frames that stand for a video, as RGB, in order of time.

    Every frame is decoded once to be counted and again as far as the last one wanted: what headers
    say of their number is often wrong. Raises UsageError without PyAV, DataError for a file that is
    missing, is no video, has no frame, or is damaged.
    """
    total = count_frames(path)
    wanted = frame_indices(total, settings.frames)
    found: dict[int, Image.Image] = {}
    with closing(_decoded(path)) as frames:
        for index, frame in enumerate(frames):
            if index in wanted:
                found[index] = frame.to_image().convert("RGB")
            if index >= wanted[-1]:
                break
    return [found[index] for index in wanted]


def count_frames(path: Path) -> int:
    """Frames of a video. Raises as `read_frames`."""
    total = 0
    with closing(_decoded(path)) as frames:
        for _ in frames:
            total += 1
            if total > MAX_FRAMES_READ:
                raise DataError(
                    f"video {path} has more than {MAX_FRAMES_READ:,} frames: cut it to the part "
                    "that is asked about"
                )
    if not total:
        raise DataError(f"video {path} has no frame: {REMEDY}")
    return total


def _decoded(path: Path) -> Generator[Any, None, None]:
    """Its frames, one after the other."""
    av = require_decoder()
    if not path.is_file():
        raise DataError(f"video {path} is not a file: correct the path")
    try:
        with av.open(str(path), mode="r") as container:
            if not container.streams.video:
                raise DataError(f"video {path} holds no pictures, sound alone at most: {REMEDY}")
            yield from container.decode(container.streams.video[0])
    except av.error.EOFError:  # a header and nothing behind it
        return
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"video {path} cannot be decoded ({reason}): {REMEDY}") from None
