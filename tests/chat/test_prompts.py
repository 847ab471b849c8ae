"""Files of prompts that name videos."""

import json
from pathlib import Path
from typing import Any

import pytest

from densekit.chat.prompts import read_prompts
from densekit.errors import DataError
from densekit.spec.talk import GenerateRequest


def request(folder: Path, *lines: dict[str, Any]) -> GenerateRequest:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return GenerateRequest(
        model=folder,
        device="cpu",
        dtype="fp32",
        max_new_tokens=4,
        file=file,
        batch_size=2,
        as_json=True,
    )


def test_videos_are_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    asked = request(tmp_path, {"prompt": "what?", "video": "clip.mp4"}, {"prompt": "why?"})
    first, second = read_prompts(asked)
    assert (first.video, first.image) == (str(tmp_path / "clip.mp4"), None)
    assert first.shown == first.video and second.shown is None
    assert (asked.video.frames, asked.video.pooled) == (8, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "what?", "video": "no.mp4"}, "line 1: video .*no.mp4 does not exist"),
        ({"prompt": "what?", "video": "a", "image": "b"}, "an image or a video, not both"),
        ({"prompt": "<image> <image>", "video": "a"}, "line 1"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(request(tmp_path, line))
