"""Frames of made videos: which are taken, and files that hold none."""

from pathlib import Path

import av
import numpy as np
import pytest

from densekit.data.video import count_frames, read_frames
from densekit.errors import DataError, UsageError
from densekit.spec.video import VideoSettings, frame_indices
from tests.support.videos import SIZE, make_video

CLUSTER = b"\x1f\x43\xb6\x75"
"""How Matroska begins what holds frames."""


def make_sound(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono"
        )
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def plain_indices(total: int, wanted: int) -> list[int]:
    """The specification with numpy, whose rounding takes halves to even."""
    count = min(total, wanted)
    edges = np.round(np.arange(count + 1) * ((total - 1) / count)).astype(int)
    return ((edges[:-1] + edges[1:]) // 2).tolist()


def test_indices_for_totals_to_a_thousand() -> None:
    for total in range(1, 1001):
        for wanted in (1, 4, 8):
            found = frame_indices(total, wanted)
            assert found == plain_indices(total, wanted)
            assert len(found) == min(total, wanted) and found == sorted(found)
            assert found[0] >= 0 and found[-1] < total
    assert frame_indices(100, 8) == [6, 18, 31, 43, 56, 68, 80, 93]


@pytest.mark.parametrize("total", [1, 3, 8, 41])
def test_the_wanted_frames_are_read(tmp_path: Path, total: int) -> None:
    path = make_video(tmp_path / "video.mkv", total)
    assert count_frames(path) == total
    frames = read_frames(path, VideoSettings())
    assert [np.asarray(frame)[0, 0].tolist() for frame in frames] == [
        [5 + index] * 3 for index in frame_indices(total, 8)
    ]
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (SIZE, SIZE))}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no frames", "has no frame"),
        ("sound", "holds no pictures"),
        ("text", "cannot be decoded"),
        ("cut", "cannot be decoded|has no frame"),
        ("missing", "is not a file"),
        ("folder", "is not a file"),
    ],
)
def test_a_file_without_frames_is_refused(tmp_path: Path, fault: str, message: str) -> None:
    path = tmp_path / "video.mkv"
    if fault == "no frames":
        whole = make_video(path, 1).read_bytes()
        path.write_bytes(whole[: whole.index(CLUSTER)])
    elif fault == "sound":
        make_sound(path)
    elif fault == "text":
        path.write_text("no video at all\n" * 50)
    elif fault == "cut":
        path.write_bytes(make_video(path, 3).read_bytes()[:300])
    elif fault == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=message):
        read_frames(path, VideoSettings())


def test_the_package_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "video.mkv", 2)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'densekit\[video\]'"):
        read_frames(path, VideoSettings())


def test_tokens_of_a_video() -> None:
    assert VideoSettings().tokens(8, 729) == 8 * 364 == 2912
    assert VideoSettings(pooled=False).tokens(3, 729) == 3 * 729
